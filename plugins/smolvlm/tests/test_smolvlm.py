"""SmolVLM, SmolVLM2 and Idefics3: prompts, and tiles as vLLM's and transformers' own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm_run import Conversation, Limits, Registry, UnknownTokenCountError
from vlm_run.testing.conversations import IMAGE, assistant, system, user
from vlm_run_smolvlm.vision import SplitImage

# Worked by hand from the chat template of the checkpoints; BOS is their first token.
PROMPTS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "text only": ([user("Q")], "BOSUser: Q<end_of_utterance>\nAssistant:"),
    "no space where an image comes first": (
        [user(IMAGE, "Q", IMAGE)],
        "BOSUser:<image>Q<image><end_of_utterance>\nAssistant:",
    ),
    "system message and history": (
        [system("S"), user(IMAGE, "Q1"), assistant("A1"), user("Q2", IMAGE)],
        "BOSSystem: S<end_of_utterance>\nUser:<image>Q1<end_of_utterance>\nAssistant: A1<end_of_utterance>\n"
        "User: Q2<image><end_of_utterance>\nAssistant:",
    ),
}


@pytest.mark.parametrize("situation", PROMPTS)
@pytest.mark.parametrize(
    ("model_type", "bos"), [("smolvlm-instruct", "<|im_start|>"), ("idefics3-8b-llama3", "<|begin_of_text|>")]
)
def test_the_prompt_is_that_of_the_published_template(model_type: str, bos: str, situation: str) -> None:
    messages, expected = PROMPTS[situation]
    prompt = Registry.load(model_type).render_prompt(Conversation.from_messages(messages))
    assert prompt.text == expected.replace("BOS", bos)


# A square, a wide image, and one so tall that it is one tile wide.
SIZES = [(640, 640), (1000, 400), (100, 2000)]


@pytest.mark.parametrize(
    ("model_type", "counts"),
    [
        ("smolvlm-256m-instruct", [1127, 597, 335]),
        ("smolvlm-instruct", [1548, 818, 456]),
        ("smolvlm2-2_2b-instruct", [1416, 750, 420]),
        ("idefics3-8b-llama3", [3027, 1601, 891]),
    ],
)
def test_image_tokens_are_those_of_vllms_processor(
    model_type: str, counts: list[int], checkpoint: Callable[[str], Path], vllm_image_tokens: Any
) -> None:
    limits = Limits(max_model_len=8192)
    adapter = Registry.load(model_type, checkpoint=checkpoint(model_type), limits=limits)
    assert vllm_image_tokens(adapter, SIZES) == counts
    assert [adapter.count_image_tokens(*size) for size in SIZES] == counts


@given(
    st.integers(1, 5000),
    st.integers(1, 5000),
    st.sampled_from([(2048, 512), (1536, 384), (1456, 364), (512, 512), (1000, 384), (5001, 1024)]),
)
def test_the_tiles_are_transformers_own(width: int, height: int, edges: tuple[int, int]) -> None:
    from transformers import Idefics3ImageProcessor

    longest_edge, tile_size = edges
    processor = Idefics3ImageProcessor(
        size={"longest_edge": longest_edge}, max_image_size={"longest_edge": tile_size}
    )
    _, rows, columns = processor.get_number_of_image_patches(height, width)
    tiles = SplitImage(longest_edge=longest_edge, tile_size=tile_size, image_seq_len=64)
    assert tiles.resized(width, height) == (max(1, columns) * tile_size, max(1, rows) * tile_size)


def test_processor_options_change_the_tiles() -> None:
    adapter = Registry.load("smolvlm-256m-instruct")
    assert adapter.largest_image() == ((2048, 2048), 1127)
    smaller = adapter.with_engine_kwargs({"mm_processor_kwargs": {"size": {"longest_edge": 1024}}})
    assert smaller.largest_image() == ((1024, 1024), 333)
    whole = adapter.with_engine_kwargs({"mm_processor_kwargs": {"do_image_splitting": False}})
    assert whole.count_image_tokens(640, 640) == 67


def test_tokens_are_not_counted_for_more_tiles_than_there_are_tags() -> None:
    adapter = Registry.load("smolvlm-256m-instruct")
    larger = adapter.with_engine_kwargs({"mm_processor_kwargs": {"size": {"longest_edge": 4096}}})
    with pytest.raises(UnknownTokenCountError, match="not for 8 x 8"):
        larger.count_image_tokens(640, 640)
