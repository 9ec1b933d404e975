"""Gemma 4: prompts with and without reasoning, soft tokens as vLLM counts them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vlm_run import Conversation, ConversationError, Limits, Registry, Request, TemplateError
from vlm_run.explain import explain
from vlm_run.testing.conversations import IMAGE, assistant, system, user
from vlm_run.testing.vllm_processor import vllm_rendering
from vlm_run_gemma.vision import BUDGETS, SoftTokenBudget

# Worked by hand from the chat template that Google published for Gemma 4 on 2026-07-09.
PROMPTS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "two images": (
        [user(IMAGE, " Q\n", IMAGE)],
        "<bos><|turn>user\n<|image|>Q<|image|><turn|>\n<|turn>model\n",
    ),
    "system message and history": (
        [system("S\n"), user("Q1"), assistant(" A1"), user(IMAGE, "Q2")],
        "<bos><|turn>system\nS <turn|>\n<|turn>user\nQ1<turn|>\n<|turn>model\nA1<turn|>\n"
        "<|turn>user\n<|image|>Q2<turn|>\n<|turn>model\n",
    ),
    "answers in a row": (
        [user("Q1"), assistant("A1"), assistant("A2"), user("Q2")],
        "<bos><|turn>user\nQ1<turn|>\n<|turn>model\nA1A2<turn|>\n<|turn>user\nQ2<turn|>\n<|turn>model\n",
    ),
    "an earlier answer with its reasoning": (
        [user("Q1"), assistant("<|channel>thought\nHm.\n<channel|>A1"), user("Q2")],
        "<bos><|turn>user\nQ1<turn|>\n<|turn>model\nA1<turn|>\n<|turn>user\nQ2<turn|>\n<|turn>model\n",
    ),
}
NO_REASONING = "<|channel>thought\n<channel|>"
"""How an answer of a larger model begins that has no reasoning."""


@pytest.mark.parametrize("situation", PROMPTS)
@pytest.mark.parametrize(
    ("model_type", "opening"), [("gemma-4-e4b-it", ""), ("gemma-4-31b-it", NO_REASONING)]
)
def test_the_prompt_is_that_of_the_published_template(model_type: str, opening: str, situation: str) -> None:
    messages, expected = PROMPTS[situation]
    prompt = Registry.load(model_type).render_prompt(Conversation.from_messages(messages))
    assert prompt.text == expected + opening


@pytest.mark.parametrize("model_type", ["gemma-4-e4b-it", "gemma-4-31b-it"])
def test_reasoning_is_switched_on_in_the_system_turn(model_type: str) -> None:
    adapter = Registry.load(model_type, template_kwargs={"enable_thinking": True})
    assert adapter.render_prompt(Conversation.from_messages([user("Q")])).text == (
        "<bos><|turn>system\n<|think|>\n<turn|>\n<|turn>user\nQ<turn|>\n<|turn>model\n"
    )
    with_system = Conversation.from_messages([system("S"), user("Q")])
    assert "<|turn>system\n<|think|>\nS <turn|>\n" in adapter.render_prompt(with_system).text


def test_tools_are_refused() -> None:
    tools = [{"type": "function", "function": {"name": "zoom", "parameters": {}}}]
    with pytest.raises(TemplateError, match="--chat-template"):
        Registry.load("gemma-4-31b-it").render_prompt(Conversation.from_messages([user("Q")], tools=tools))


@pytest.mark.parametrize("model_type", ["gemma-4-e4b-it", "gemma-4-12b-it"])
@pytest.mark.parametrize(
    ("options", "counts"),
    [
        ({}, [258, 268, 266, 224, 226]),
        ({"max_soft_tokens": 70}, [66, 65, 68, 39, 72]),
        ({"max_soft_tokens": 1120}, [1091, 1066, 1102, 1045, 898]),
    ],
)
def test_image_tokens_are_those_of_vllms_processor(
    options: dict[str, Any],
    counts: list[int],
    model_type: str,
    checkpoint: Callable[[str], Path],
    vllm_image_tokens: Any,
) -> None:
    adapter = Registry.load(
        model_type,
        checkpoint=checkpoint(model_type),
        limits=Limits(max_model_len=8192),
        config={"mm_processor_kwargs": options} if options else None,
    )
    sizes = [(896, 896), (640, 480), (1920, 1080), (100, 2000), (5, 900)]
    assert vllm_image_tokens(adapter, sizes) == counts
    assert [adapter.count_image_tokens(*size) for size in sizes] == counts


@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from(BUDGETS))
def test_the_size_is_transformers_own(width: int, height: int, budget: int) -> None:
    from transformers.models.gemma4.image_processing_gemma4 import get_aspect_ratio_preserving_size

    facts = SoftTokenBudget(patch_size=16, pooling_kernel_size=3, max_soft_tokens=budget)
    assert (
        facts.resized(width, height)
        == get_aspect_ratio_preserving_size(height, width, 16, budget * 9, 3)[::-1]
    )


@pytest.mark.parametrize("budget", BUDGETS)
def test_an_engine_has_one_of_five_budgets(budget: int) -> None:
    adapter = Registry.load("gemma-4-31b-it").with_engine_kwargs(
        {"mm_processor_kwargs": {"max_soft_tokens": budget}}
    )
    largest = adapter.largest_image()
    assert largest is not None
    assert largest[1] == budget + 2


PIXELS = 48 * 48
"""Area of one soft token."""


@pytest.mark.parametrize(
    ("max_pixels", "budget"), [(1, 70), (140 * PIXELS - 1, 70), (140 * PIXELS, 140), (10**7, 280)]
)
def test_max_pixels_of_a_request_is_the_largest_budget_within_the_engines(
    max_pixels: int, budget: int
) -> None:
    request = Request.parse({"query": "Q", "images": ["640x480"], "max_pixels": max_pixels})
    explanation = explain(Registry.load("gemma-4-31b-it"), request.conversation)
    (cost,) = explanation.images
    facts = SoftTokenBudget(patch_size=16, pooling_kernel_size=3, max_soft_tokens=budget)
    assert cost.tokens == facts.count_image_tokens(640, 480)
    assert cost.resized == facts.resized(640, 480)


def test_max_pixels_of_an_engine_is_its_budget() -> None:
    adapter = Registry.load("gemma-4-31b-it", limits=Limits(max_pixels=140 * PIXELS))
    assert adapter.engine_kwargs()["mm_processor_kwargs"] == {"max_soft_tokens": 140}
    assert adapter.largest_image() == ((672, 480), 142)


def test_vllms_processor_heeds_max_pixels_of_a_request(checkpoint: Callable[[str], Path]) -> None:
    adapter = Registry.load(
        "gemma-4-e4b-it", checkpoint=checkpoint("gemma-4-e4b-it"), limits=Limits(max_model_len=8192)
    )
    image = Image.new("RGB", (640, 480))
    ask = {"query": "Q", "images": [image, image]}

    with vllm_rendering(adapter) as render:
        for bounds, tokens in (({}, 268), ({"max_pixels": 70 * PIXELS}, 65), ({}, 268)):
            rendered = render(Request.parse({**ask, **bounds}).conversation)
            assert rendered.image_tokens == (tokens, tokens)
        parts = [{"type": "image", "image": image, "max_pixels": 1}, {"type": "image", "image": image}]
        mixed = {"messages": [{"role": "user", "content": parts}]}
        with pytest.raises(ConversationError, match="one max_pixels for all images"):
            render(Request.parse(mixed).conversation)


def test_videos_are_off_since_one_would_need_a_batch_of_2496_tokens() -> None:
    limits = Registry.load("gemma-4-31b-it").engine_kwargs()["limit_mm_per_prompt"]
    assert limits == {"video": 0, "audio": 0}
