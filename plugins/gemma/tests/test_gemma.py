"""Gemma 3: prompts as the published template renders them, image tokens as vLLM counts them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlm_run import Conversation, Limits, Registry, TemplateError, UnknownTokenCountError
from vlm_run.testing.conversations import IMAGE, assistant, system, user

MODEL_TYPE = "gemma-3-4b-it"

# Worked by hand from the template in transformers' `convert_gemma3_weights_orbax_to_hf.py`.
PROMPTS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "text only": (
        [user("Q")],
        "<bos><start_of_turn>user\nQ<end_of_turn>\n<start_of_turn>model\n",
    ),
    "two images": (
        [user(IMAGE, "Q", IMAGE)],
        "<bos><start_of_turn>user\n<start_of_image>Q<start_of_image><end_of_turn>\n<start_of_turn>model\n",
    ),
    "system message and history": (
        [system("S"), user("Q1 "), assistant("A1"), user(IMAGE, "Q2")],
        "<bos><start_of_turn>user\nS\n\nQ1<end_of_turn>\n<start_of_turn>model\nA1<end_of_turn>\n"
        "<start_of_turn>user\n<start_of_image>Q2<end_of_turn>\n<start_of_turn>model\n",
    ),
}


@pytest.mark.parametrize("name", PROMPTS)
def test_the_prompt_is_that_of_the_published_template(name: str) -> None:
    messages, expected = PROMPTS[name]
    adapter = Registry.load(MODEL_TYPE)
    assert adapter.render_prompt(Conversation.from_messages(messages)).text == expected


def test_turns_that_do_not_alternate_are_refused() -> None:
    with pytest.raises(TemplateError, match="must alternate"):
        Registry.load(MODEL_TYPE).render_prompt(Conversation.from_messages([user("Q"), user("Q")]))


def test_every_image_takes_as_many_tokens_as_vllms_processor_gives(
    checkpoint: Callable[[str], Path], vllm_image_tokens: Any
) -> None:
    limits = Limits(max_model_len=8192)
    adapter = Registry.load(MODEL_TYPE, checkpoint=checkpoint(MODEL_TYPE), limits=limits)
    sizes = [(896, 896), (1, 1), (640, 480), (1920, 1080), (100, 2000)]
    assert vllm_image_tokens(adapter, sizes) == [260] * len(sizes)
    assert {adapter.count_image_tokens(*size) for size in sizes} == {260}


def test_tokens_are_not_counted_with_pan_and_scan() -> None:
    adapter = Registry.load(MODEL_TYPE).with_engine_kwargs({"mm_processor_kwargs": {"do_pan_and_scan": True}})
    with pytest.raises(UnknownTokenCountError, match="do_pan_and_scan"):
        adapter.count_image_tokens(2000, 500)
