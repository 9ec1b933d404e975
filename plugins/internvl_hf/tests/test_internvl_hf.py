"""InternVL3 and InternVL3.5: prompts, tiles as vLLM's and transformers' own, GPUs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm_run import Conversation, Limits, Registry
from vlm_run.testing.conversations import IMAGE, assistant, system, user
from vlm_run_internvl_hf.vision import Tiles

# Worked by hand from `chat_template` in transformers' `convert_internvl_weights_to_hf.py`.
PROMPTS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "images between texts": (
        [user("Q1", IMAGE, "Q2", IMAGE)],
        "<|im_start|>user\nQ1<IMG_CONTEXT>\nQ2<IMG_CONTEXT>\n<|im_end|>\n<|im_start|>assistant\n",
    ),
    "system message and history": (
        [system("S"), user(IMAGE, "Q1"), assistant("A1"), user("Q2")],
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n<IMG_CONTEXT>\nQ1<|im_end|>\n"
        "<|im_start|>assistant\nA1<|im_end|>\n<|im_start|>user\nQ2<|im_end|>\n<|im_start|>assistant\n",
    ),
}


@pytest.mark.parametrize("situation", PROMPTS)
def test_the_prompt_is_that_of_the_published_template(situation: str) -> None:
    messages, expected = PROMPTS[situation]
    adapter = Registry.load("internvl3_5-8b-hf")
    assert adapter.render_prompt(Conversation.from_messages(messages)).text == expected


def test_image_tokens_are_those_of_vllms_processor(
    checkpoint: Callable[[str], Path], vllm_image_tokens: Any
) -> None:
    directory, limits = checkpoint("internvl3_5-8b-hf"), Limits(max_model_len=32768)
    adapter = Registry.load("internvl3_5-8b-hf", checkpoint=directory, limits=limits)
    sizes = [(448, 448), (1000, 400), (1920, 1080), (1792, 1344), (100, 2000)]
    assert vllm_image_tokens(adapter, sizes) == [258, 2818, 2306, 3330, 3330]
    assert [adapter.count_image_tokens(*size) for size in sizes] == [258, 2818, 2306, 3330, 3330]


@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([1, 4, 12]))
def test_the_grid_is_transformers_own(width: int, height: int, most: int) -> None:
    from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas

    tiles = Tiles(image_size=448, image_seq_length=256, max_patches=most)
    columns, rows = get_optimal_tiled_canvas((height, width), (448, 448), 1, most)
    assert tiles.resized(width, height) == (448 * columns, 448 * rows)


def test_processor_options_change_the_tiles() -> None:
    adapter = Registry.load("internvl3-8b-hf")
    assert adapter.largest_image() == ((1344, 1792), 3330)
    four = adapter.with_engine_kwargs({"mm_processor_kwargs": {"max_patches": 4}})
    assert four.largest_image() == ((896, 896), 1282)
    one = adapter.with_engine_kwargs({"mm_processor_kwargs": {"crop_to_patches": False}})
    assert one.count_image_tokens(1792, 1344) == 258


# Parameters in thousand millions; two bytes each, and 10 % of a GPU kept free.
WEIGHTS = {
    "internvl3-14b-hf": 15.1,
    "internvl3-38b-hf": 38.4,
    "internvl3-78b-hf": 78.4,
    "internvl3_5-14b-hf": 15.1,
    "internvl3_5-38b-hf": 38.4,
    "internvl3_5-30b-a3b-hf": 30.8,
}


@pytest.mark.parametrize("model_type", WEIGHTS)
def test_weights_and_a_context_fit_the_gpus(model_type: str) -> None:
    kwargs = Registry.load(model_type).engine_kwargs()
    gpus = kwargs.get("tensor_parallel_size", 1)
    needed = 2 * WEIGHTS[model_type] + 9  # GB; a context of 32,768 tokens takes 8.6 in 38B
    assert needed < 0.9 * 80 * gpus
    assert gpus == 1 or needed > 0.9 * 80 * gpus / 2


def test_boxes_of_the_example_in_internvls_documentation() -> None:
    adapter = Registry.load("internvl3-8b-hf")
    answer = "<ref>the lady with the blue shirt</ref><box>[[243, 469, 558, 746]]</box>"
    (box,) = adapter.parse_boxes(answer, [adapter.image_size(427, 640)])
    assert box.label == "the lady with the blue shirt"
    assert box.edges == (103.76, 300.16, 238.27, 477.44)
