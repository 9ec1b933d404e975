"""Qwen3.5 and Qwen3.6: prompts with and without reasoning, checkpoints, GPUs, image tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlm_run import Conversation, Limits, Registry, TemplateError, UnknownModelError
from vlm_run.plugins.discovery import Plugins, discover
from vlm_run.testing.conversations import IMAGE, assistant, system, user

TAG = "<|vision_start|><|image_pad|><|vision_end|>"
THINKING = ["qwen3_5-4b", "qwen3_5-9b", "qwen3_5-27b", "qwen3_5-35b-a3b", "qwen3_6-27b", "qwen3_6-35b-a3b"]
DIRECT = ["qwen3_5-0_8b", "qwen3_5-2b"]
OPENINGS = {
    **dict.fromkeys(THINKING, "<|im_start|>assistant\n<think>\n"),
    **dict.fromkeys(DIRECT, "<|im_start|>assistant\n<think>\n\n</think>\n\n"),
}

TOOL = {"type": "function", "function": {"name": "zoom", "parameters": {"type": "object"}}}
CALL = {"function": {"name": "zoom", "arguments": {"by": 2, "at": [1, 2]}}}
ZOOM = (
    "<tool_call>\n<function=zoom>\n<parameter=by>\n2\n</parameter>\n<parameter=at>\n[1, 2]\n</parameter>\n"
    "</function>\n</tool_call>"
)

# The chat template of Qwen/Qwen3.5-9B, worked through by hand, up to the opening of the answer.
PROMPTS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "images between texts": (
        [user("Q1", IMAGE, "Q2", IMAGE)],
        f"<|im_start|>user\nQ1{TAG}Q2{TAG}<|im_end|>\n",
    ),
    "white space around texts": (
        [system(" S\n"), user("\n Q ")],
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n",
    ),
    "an earlier answer with its reasoning": (
        [user(IMAGE, "Q1"), assistant("<think>\nHm.\n</think>\n\nA1"), user("Q2")],
        f"<|im_start|>user\n{TAG}Q1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n"
        "<|im_start|>user\nQ2<|im_end|>\n",
    ),
    "a call of a tool and its response": (
        [
            user("Q"),
            {"role": "assistant", "content": "Look.", "tool_calls": [CALL, CALL]},
            {"role": "tool", "content": "R1"},
            {"role": "tool", "content": "R2"},
        ],
        "<|im_start|>user\nQ<|im_end|>\n"
        f"<|im_start|>assistant\n<think>\n\n</think>\n\nLook.\n\n{ZOOM}\n{ZOOM}<|im_end|>\n"
        "<|im_start|>user\n<tool_response>\nR1\n</tool_response>\n<tool_response>\nR2\n</tool_response>"
        "<|im_end|>\n",
    ),
}


@pytest.mark.parametrize("situation", PROMPTS)
@pytest.mark.parametrize("model_type", OPENINGS)
def test_the_prompt_is_that_of_the_published_template(model_type: str, situation: str) -> None:
    messages, expected = PROMPTS[situation]
    prompt = Registry.load(model_type).render_prompt(Conversation.from_messages(messages))
    assert prompt.text == expected + OPENINGS[model_type]


@pytest.mark.parametrize("model_type", OPENINGS)
@pytest.mark.parametrize("thinking", [True, False])
def test_reasoning_is_switched_on_and_off(model_type: str, thinking: bool) -> None:
    adapter = Registry.load(model_type, template_kwargs={"enable_thinking": thinking})
    text = adapter.render_prompt(Conversation.from_query("Q")).text
    assert text.endswith(OPENINGS[(THINKING if thinking else DIRECT)[0]])


def test_tools_precede_the_system_message() -> None:
    conversation = Conversation.from_messages([system("S"), user("Q")], tools=[TOOL])
    text = Registry.load("qwen3_5-9b").render_prompt(conversation).text
    assert text.startswith(
        "<|im_start|>system\n# Tools\n\nYou have access to the following functions:\n\n<tools>\n"
        '{"type": "function", "function": {"name": "zoom", "parameters": {"type": "object"}}}\n</tools>\n\n'
    )
    assert "</IMPORTANT>\n\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n" in text


def test_an_answer_that_is_continued_has_an_empty_reasoning() -> None:
    conversation = Conversation.from_messages([user("Q"), assistant("It is")], continued=True)
    prompt = Registry.load("qwen3_5-9b").render_prompt(conversation)
    assert prompt.text.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\nIt is")


def test_a_system_message_must_be_the_first() -> None:
    conversation = Conversation.from_messages([user("Q1"), system("S"), user("Q2")])
    with pytest.raises(TemplateError, match="a system message must be the first"):
        Registry.load("qwen3_5-9b").render_prompt(conversation)


# What the chat templates of the generations have of their own; that of Qwen3.8 is from its model card.
MARKS = {
    "3_5": "{%- if loop.index0 > ns.last_query_index %}",
    "3_6": "{%- if (preserve_thinking is defined and preserve_thinking is true) or (loop.index0 > "
    "ns.last_query_index) %}",
    "3_8": "{%- if preserve_thinking is undefined or preserve_thinking is true or loop.index0 > "
    "ns.last_query_index %}",
}


def _checkpoint(directory: Path, generation: str, hidden_size: int, moe: bool) -> Path:
    config = {
        "architectures": [f"Qwen3_5{'Moe' if moe else ''}ForConditionalGeneration"],
        "text_config": {"hidden_size": hidden_size},
    }
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "chat_template.jinja").write_text(MARKS[generation] + "{%- endif %}")
    return directory


@pytest.fixture
def only_qwen() -> Plugins:
    from vlm_run.plugins.discovery import _entry_points

    return discover(point for point in _entry_points() if point.name == "qwen_vl")


@pytest.mark.parametrize(
    ("generation", "hidden_size", "moe", "model_type"),
    [
        ("3_5", 1024, False, "qwen3_5-0_8b"),
        ("3_5", 2048, False, "qwen3_5-2b"),
        ("3_5", 2560, False, "qwen3_5-4b"),
        ("3_5", 4096, False, "qwen3_5-9b"),
        ("3_5", 5120, False, "qwen3_5-27b"),
        ("3_6", 5120, False, "qwen3_6-27b"),
        ("3_5", 2048, True, "qwen3_5-35b-a3b"),
        ("3_6", 2048, True, "qwen3_6-35b-a3b"),
    ],
)
def test_a_checkpoint_tells_its_size_and_generation(
    generation: str, hidden_size: int, moe: bool, model_type: str, tmp_path: Path
) -> None:
    directory = _checkpoint(tmp_path, generation, hidden_size, moe)
    assert Registry.load(directory).spec.model_type == model_type


def test_a_later_generation_of_the_same_dimensions_is_none_of_these(
    tmp_path: Path, only_qwen: Plugins
) -> None:
    directory = _checkpoint(tmp_path, "3_8", 5120, moe=False)
    with pytest.raises(UnknownModelError, match="no installed plugin serves the checkpoint"):
        Registry.load(directory, plugins=only_qwen)


# Parameters in thousand millions; two bytes each, and 10 % of a GPU kept free.
WEIGHTS = {
    "qwen3_5-9b": 9.7,
    "qwen3_5-27b": 27.8,
    "qwen3_6-27b": 27.8,
    "qwen3_5-35b-a3b": 36,
    "qwen3_6-35b-a3b": 36,
}


@pytest.mark.parametrize("model_type", WEIGHTS)
def test_weights_and_a_context_fit_the_gpus(model_type: str) -> None:
    gpus = Registry.load(model_type).engine_kwargs().get("tensor_parallel_size", 1)
    # GB; a context of 32,768 tokens takes 2.1 in the 16 layers with full attention of 27B.
    needed = 2 * WEIGHTS[model_type] + 5
    assert 0.9 * 80 * (gpus - 1) < needed < 0.9 * 80 * gpus


def test_weights_in_fp8_need_one_gpu() -> None:
    adapter = Registry.load("Qwen/Qwen3.6-35B-A3B-FP8")
    assert (adapter.spec.model_type, adapter.source) == ("qwen3_6-35b-a3b", "Qwen/Qwen3.6-35B-A3B-FP8")
    assert adapter.engine_kwargs()["tensor_parallel_size"] == 1


def test_image_tokens_are_those_of_vllms_processor(
    checkpoint: Callable[[str], Path], vllm_image_tokens: Any
) -> None:
    limits = Limits(max_model_len=32768)
    adapter = Registry.load("qwen3_5-9b", checkpoint=checkpoint("qwen3_5-9b"), limits=limits)
    sizes = [(336, 336), (1000, 400), (1920, 1080), (32, 32), (300, 5000)]
    assert vllm_image_tokens(adapter, sizes) == [100, 372, 2040, 64, 1404]
    assert [adapter.count_image_tokens(*size) for size in sizes] == [100, 372, 2040, 64, 1404]
