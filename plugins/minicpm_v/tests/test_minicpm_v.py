"""MiniCPM-V 4.6: prompts, image tokens as vLLM's and transformers' own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm_run import Conversation, Limits, Registry
from vlm_run.testing.conversations import IMAGE, assistant, system, user
from vlm_run_minicpm_v.vision import Slices

MODEL_TYPE = "minicpm-v-4_6"
ANSWER = "<|im_start|>assistant\n<think>\n\n</think>\n\n"
"""How an answer begins."""

# Worked by hand from ms-swift's `MiniCPMV4_6Template`.
PROMPTS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "images between texts": (
        [user("Q1", IMAGE, "Q2", IMAGE)],
        "<|im_start|>user\nQ1<|image_pad|>\nQ2<|image_pad|>\n<|im_end|>\n",
    ),
    "system message and history": (
        [system("S"), user(IMAGE, "Q1"), assistant("A1"), user("Q2")],
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n<|image_pad|>\nQ1<|im_end|>\n"
        "<|im_start|>assistant\nA1<|im_end|>\n<|im_start|>user\nQ2<|im_end|>\n",
    ),
}


@pytest.mark.parametrize("situation", PROMPTS)
def test_the_prompt_is_that_of_ms_swift(situation: str) -> None:
    messages, expected = PROMPTS[situation]
    prompt = Registry.load(MODEL_TYPE).render_prompt(Conversation.from_messages(messages))
    assert prompt.text == expected + ANSWER


SIZES = [(448, 448), (336, 336), (1000, 400), (1920, 1080), (1344, 1344), (100, 2000), (3, 900)]


@pytest.mark.parametrize(
    ("options", "counts"),
    [
        ({}, [69, 69, 265, 600, 665, 77, 144]),
        ({"max_slice_nums": 4}, [69, 69, 265, 257, 334, 77, 144]),
        ({"downsample_mode": "4x"}, [261, 261, 1027, 2334, 2585, 293, 561]),
    ],
)
def test_image_tokens_are_those_of_vllms_processor(
    options: dict[str, Any], counts: list[int], checkpoint: Callable[[str], Path], vllm_image_tokens: Any
) -> None:
    limits, config = Limits(max_model_len=8192), {"mm_processor_kwargs": options} if options else {}
    adapter = Registry.load(MODEL_TYPE, checkpoint=checkpoint(MODEL_TYPE), limits=limits, config=config)
    assert vllm_image_tokens(adapter, SIZES) == counts
    assert [adapter.count_image_tokens(*size) for size in SIZES] == counts


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 12))
def test_sizes_are_transformers_own(width: int, height: int, most: int) -> None:
    from transformers.models.minicpmv4_6.image_processing_minicpmv4_6 import MiniCPMV4_6ImageProcessor

    theirs, size = MiniCPMV4_6ImageProcessor(), (height, width)
    grid = theirs.get_sliced_grid(size, most, 448)
    expected = (
        theirs.find_best_resize(size, 448, 14, allow_upscale=True)
        if grid is None
        else theirs.get_refine_size(size, grid, 448, 14, allow_upscale=True)
    )
    ours = Slices(scale_resolution=448, patch_size=14, max_slice_nums=most)
    assert ours.resized(width, height) == expected[::-1]


def test_the_largest_image_has_all_slices() -> None:
    assert Registry.load(MODEL_TYPE).largest_image() == ((1344, 1344), 665)
