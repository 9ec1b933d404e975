"""GLM-V: prompts as the published templates render them, image tokens, bounds on areas."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vlm_run import Conversation, Limits, Registry, Request, TemplateError
from vlm_run.errors import MediaError
from vlm_run.testing.conversations import IMAGE, assistant, system, user
from vlm_run_glm_v.vision import TwoFrames

TAG = "<|begin_of_image|><|image|><|end_of_image|>"
HYBRID = ["glm-4_5v", "glm-4_6v", "glm-4_6v-flash", "glm-ocr"]
"""Model types with the template of GLM-4.5V."""
THOUGHT = assistant("<think>\nLook.\n</think>\n\nA1 ")

# The chat template of GLM-4.1V, worked through by hand.
PROMPTS_4_1: dict[str, tuple[list[dict[str, Any]], str]] = {
    "images between texts": (
        [user("Q1", IMAGE, "Q2", IMAGE)],
        f"<|user|>\nQ1{TAG}Q2{TAG}<|assistant|>\n",
    ),
    "system message and history": (
        [system("S"), user(IMAGE, "Q1"), assistant("A1"), user("Q2")],
        f"<|system|>\nS<|user|>\n{TAG}Q1<|assistant|>\nA1<|user|>\nQ2<|assistant|>\n",
    ),
    "reasoning in an earlier answer": (
        [user("Q1"), THOUGHT, user("Q2")],
        "<|user|>\nQ1<|assistant|>\nA1 <|user|>\nQ2<|assistant|>\n",
    ),
}
# That of GLM-4.5V.
CALL = {"function": {"name": "zoom", "arguments": {"box": [1, 2], "to": "left"}}}
PROMPTS_4_5: dict[str, tuple[list[dict[str, Any]], str]] = {
    "images between texts": PROMPTS_4_1["images between texts"],
    "system message and history": (
        [system("S"), user(IMAGE, "Q1"), assistant("A1"), user("Q2")],
        f"<|system|>\nS<|user|>\n{TAG}Q1<|assistant|>\n<think></think>\nA1<|user|>\nQ2<|assistant|>\n",
    ),
    "reasoning in an earlier answer": (
        [user("Q1"), THOUGHT, user("Q1")],
        "<|user|>\nQ1<|assistant|>\n<think></think>\nA1<|user|>\nQ1<|assistant|>\n",
    ),
    "tools": (
        [
            user("Q1"),
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "content": "R1"},
            {"role": "tool", "content": "R2"},
        ],
        "<|user|>\nQ1<|assistant|>\n<think></think>\n<tool_call>zoom\n"
        "<arg_key>box</arg_key>\n<arg_value>[1, 2]</arg_value>\n"
        "<arg_key>to</arg_key>\n<arg_value>left</arg_value>\n</tool_call>"
        "<|observation|>\n<tool_response>\nR1\n</tool_response>\n<tool_response>\nR2\n</tool_response>"
        "<|assistant|>\n",
    ),
}


@pytest.mark.parametrize("situation", PROMPTS_4_1)
def test_the_prompt_is_that_of_the_published_template(situation: str) -> None:
    messages, expected = PROMPTS_4_1[situation]
    prompt = Registry.load("glm-4_1v-9b-thinking").render_prompt(Conversation.from_messages(messages))
    assert prompt.text == f"[gMASK]<sop>{expected}"


@pytest.mark.parametrize("situation", PROMPTS_4_5)
@pytest.mark.parametrize("model_type", HYBRID)
def test_the_prompt_is_that_of_glm_4_5v(model_type: str, situation: str) -> None:
    messages, expected = PROMPTS_4_5[situation]
    prompt = Registry.load(model_type).render_prompt(Conversation.from_messages(messages))
    assert prompt.text == f"[gMASK]<sop>{expected}"


@pytest.mark.parametrize("model_type", HYBRID)
def test_without_reasoning_each_question_says_so_once(model_type: str) -> None:
    conversation = Conversation.from_messages([user(IMAGE, "Q1"), assistant("A1"), user("Q2/nothink")])
    adapter = Registry.load(model_type, template_kwargs={"enable_thinking": False})
    assert adapter.render_prompt(conversation).text == (
        f"[gMASK]<sop><|user|>\n{TAG}Q1/nothink<|assistant|>\n<think></think>\nA1"
        "<|user|>\nQ2/nothink<|assistant|>\n<think></think>\n"
    )


def test_tools_come_before_the_system_message() -> None:
    tool = {"type": "function", "function": {"name": "zoom"}}
    conversation = Conversation.from_messages([system("S"), user("Q")], tools=[tool])
    text = Registry.load("glm-4_6v").render_prompt(conversation).text
    assert text.startswith("[gMASK]<sop><|system|>\n# Tools\n\nYou may call")
    assert f"\n<tools>\n{json.dumps(tool)}\n</tools>\n\nFor each" in text
    assert text.endswith("...\n</tool_call><|system|>\nS<|user|>\nQ<|assistant|>\n")


def test_the_first_of_them_has_no_tools() -> None:
    messages = [user("Q"), assistant("A"), {"role": "tool", "content": "R"}]
    with pytest.raises(TemplateError, match="tools are not supported"):
        Registry.load("glm-4_1v-9b-thinking").render_prompt(Conversation.from_messages(messages))


def test_a_task_is_the_text_after_the_image() -> None:
    conversation = Request.parse({"task": "table", "images": ["page.png"]}).conversation
    prompt = Registry.load("glm-ocr").render_prompt(conversation)
    assert prompt.text == f"[gMASK]<sop><|user|>\n{TAG}Table Recognition:<|assistant|>\n"


SIZES = [(336, 336), (1000, 400), (1920, 1080), (60, 1000), (2300, 2300), (20, 400), (3, 600)]


@pytest.mark.parametrize(
    ("model_type", "limits", "counts"),
    [
        ("glm-4_1v-9b-thinking", Limits(), [144, 504, 2691, 72, 6084, 20, 200]),
        ("glm-ocr", Limits(), [144, 504, 2691, 72, 6084, 20, 200]),
        ("glm-ocr", Limits(min_pixels=50000, max_pixels=200000), [144, 250, 231, 72, 225, 72, 200]),
    ],
)
def test_image_tokens_are_those_of_vllms_processor(
    model_type: str,
    limits: Limits,
    counts: list[int],
    checkpoint: Callable[[str], Path],
    vllm_image_tokens: Any,
) -> None:
    adapter = Registry.load(model_type, checkpoint=checkpoint(model_type), limits=limits)
    assert vllm_image_tokens(adapter, SIZES) == counts
    assert [adapter.count_image_tokens(*size) for size in SIZES] == counts


@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([(12544, 9633792), (100000, 400000)]))
def test_sizes_are_transformers_own(width: int, height: int, size: tuple[int, int]) -> None:
    from transformers.models.glm4v.image_processing_glm4v import smart_resize

    assume(max(width, height) <= 200 * min(width, height))
    smallest, largest = size
    facts = TwoFrames(patch_size=14, merge_size=2, min_pixels=smallest // 2, max_pixels=largest // 2)
    expected = smart_resize(2, height, width, 2, 28, smallest, largest)
    assert facts.resized(width, height) == expected[::-1]


@pytest.mark.parametrize("size", [(1, 201), (601, 3)])
def test_an_image_too_narrow_for_the_processor_is_refused(size: tuple[int, int]) -> None:
    from transformers.models.glm4v.image_processing_glm4v import smart_resize

    with pytest.raises(ValueError, match="aspect ratio must be smaller than 200"):
        smart_resize(2, *size)
    with pytest.raises(MediaError, match="too narrow"):
        Registry.load("glm-4_5v").count_image_tokens(*size)


def test_bounds_on_areas_are_given_in_the_processors_unit() -> None:
    adapter = Registry.load("glm-4_5v", limits=Limits(max_pixels=1000000, max_images=3))
    kwargs = adapter.engine_kwargs()
    assert kwargs["mm_processor_kwargs"] == {"size": {"shortest_edge": 12544, "longest_edge": 2000000}}
    assert kwargs["limit_mm_per_prompt"] == {"video": 0, "image": 3}
    assert adapter.resized(2000, 2000) == (980, 980)
    ignored = adapter.with_engine_kwargs({"mm_processor_kwargs": {"max_pixels": 100000}})
    assert ignored.resized(2000, 2000) == (980, 980)


def test_boxes_of_the_form_in_the_readme_of_glm_v() -> None:
    adapter = Registry.load("glm-4_5v")
    answer = "<think>Maybe [0, 0, 9, 9].</think>It is at [[100, 250, 500, 750]]."
    (box,) = adapter.parse_boxes(answer, [adapter.image_size(640, 400)])
    assert box.edges == (64, 100, 320, 300)
