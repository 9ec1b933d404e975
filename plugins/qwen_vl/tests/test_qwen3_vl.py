"""Qwen3-VL in all sizes, Qwen2.5-VL 32B: editions, prompts of Thinking, checkpoints, GPUs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jinja2
import pytest

from vlm_run import Conversation, Registry
from vlm_run.errors import TemplateError
from vlm_run.testing.conversations import IMAGE, assistant, system, user

SIZES = ["2b", "4b", "8b", "32b", "30b-a3b", "235b-a22b"]
THINKING = [f"qwen3-vl-{size}-thinking" for size in SIZES]
INSTRUCT = [f"qwen3-vl-{size}-instruct" for size in SIZES]

TAG = "<|vision_start|><|image_pad|><|vision_end|>"


OPENING = "<|im_start|>assistant\n<think>\n"
# The chat template of Qwen/Qwen3-VL-8B-Thinking, without tools, worked through by hand.
AS_THINKING: dict[str, tuple[list[dict[str, Any]], str]] = {
    "text alone": ([user("Q")], f"<|im_start|>user\nQ<|im_end|>\n{OPENING}"),
    "one image": ([user(IMAGE, "Q")], f"<|im_start|>user\n{TAG}Q<|im_end|>\n{OPENING}"),
    "images between texts": (
        [user("Q1", IMAGE, "Q2", IMAGE)],
        f"<|im_start|>user\nQ1{TAG}Q2{TAG}<|im_end|>\n{OPENING}",
    ),
    "system message": (
        [system("S"), user("Q")],
        f"<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n{OPENING}",
    ),
    "history": (
        [user(IMAGE, "Q1"), assistant("A1"), user("Q2")],
        f"<|im_start|>user\n{TAG}Q1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n"
        f"<|im_start|>user\nQ2<|im_end|>\n{OPENING}",
    ),
    "an answer with its reasoning": (
        [user("Q1"), assistant("Let me see.\n</think>\n\nA1"), user("Q2")],
        "<|im_start|>user\nQ1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n"
        f"<|im_start|>user\nQ2<|im_end|>\n{OPENING}",
    ),
    "an answer that opens its reasoning itself": (
        [user("Q1"), assistant("<think>\nHm.\n</think>\n\nA1\n"), user("Q2")],
        "<|im_start|>user\nQ1<|im_end|>\n<|im_start|>assistant\nA1\n<|im_end|>\n"
        f"<|im_start|>user\nQ2<|im_end|>\n{OPENING}",
    ),
}


TOOL = {"type": "function", "function": {"name": "zoom", "parameters": {"type": "object"}}}
CALL = {"id": "1", "type": "function", "function": {"name": "zoom", "arguments": '{"by": 2}'}}
ABOUT_TOOLS = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with "
    "function signatures within <tools></tools> XML tags:\n<tools>\n"
    '{"type": "function", "function": {"name": "zoom", "parameters": {"type": "object"}}}\n</tools>\n\n'
    "For each function call, return a json object with function name and arguments within "
    '<tool_call></tool_call> XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": '
    "<args-json-object>}\n</tool_call>"
)
ZOOM = '<tool_call>\n{"name": "zoom", "arguments": {"by": 2}}\n</tool_call>'
RESPONSES = (
    "<|im_start|>user\n<tool_response>\nR1\n</tool_response>\n"
    "<tool_response>\nR2\n</tool_response><|im_end|>\n"
)


@pytest.mark.parametrize(("edition", "end"), [("instruct", ""), ("thinking", "<think>\n")])
@pytest.mark.parametrize("system_message", [None, "S"])
def test_tools_their_calls_and_responses_are_as_in_the_hubs_template(
    edition: str, end: str, system_message: str | None
) -> None:
    messages = [
        *([] if system_message is None else [system(system_message)]),
        user(IMAGE, "Q"),
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "R0", "tool_call_id": "1"},
        {**assistant("Again."), "tool_calls": [CALL, {"function": {"name": "zoom", "arguments": {"by": 2}}}]},
        {"role": "tool", "content": "R1"},
        {"role": "tool", "content": "R2"},
    ]
    conversation = Conversation.from_messages(messages, tools=[TOOL])
    about = ABOUT_TOOLS if system_message is None else f"S\n\n{ABOUT_TOOLS}"
    assert Registry.load(f"qwen3-vl-8b-{edition}").render_prompt(conversation).text == (
        f"<|im_start|>system\n{about}<|im_end|>\n<|im_start|>user\n{TAG}Q<|im_end|>\n"
        f"<|im_start|>assistant\n{ZOOM}<|im_end|>\n"
        "<|im_start|>user\n<tool_response>\nR0\n</tool_response><|im_end|>\n"
        f"<|im_start|>assistant\nAgain.\n{ZOOM}\n{ZOOM}<|im_end|>\n{RESPONSES}"
        f"<|im_start|>assistant\n{end}"
    )


def test_a_later_system_message_is_where_it_is_or_refused() -> None:
    conversation = Conversation.from_messages([user("Q1"), system("S"), user("Q2")])
    assert "<|im_start|>system\nS<|im_end|>\n" in Registry.load(THINKING[0]).render_prompt(conversation).text
    with pytest.raises(TemplateError, match="a system message must be the first"):
        Registry.load(INSTRUCT[0]).render_prompt(conversation)


def test_an_answer_of_thinking_that_is_continued_has_an_empty_reasoning() -> None:
    conversation = Conversation.from_messages([user("Q"), assistant("It is")], continued=True)
    assert (
        Registry.load(THINKING[0])
        .render_prompt(conversation)
        .text.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\nIt is")
    )
    assert (
        Registry.load(INSTRUCT[0]).render_prompt(conversation).text.endswith("<|im_start|>assistant\nIt is")
    )


@pytest.mark.parametrize("situation", AS_THINKING)
@pytest.mark.parametrize("model_type", THINKING)
def test_thinkings_prompt_is_that_of_the_hubs_template(model_type: str, situation: str) -> None:
    messages, expected = AS_THINKING[situation]
    prompt = Registry.load(model_type).render_prompt(Conversation.from_messages(messages))
    assert prompt.text == expected
    assert prompt.literals == ()


@pytest.mark.parametrize("model_type", INSTRUCT)
def test_instructs_prompt_opens_no_reasoning(model_type: str) -> None:
    prompt = Registry.load(model_type).render_prompt(Conversation.from_messages([user(IMAGE, "Q")]))
    assert prompt.text == f"<|im_start|>user\n{TAG}Q<|im_end|>\n<|im_start|>assistant\n"


def test_the_template_alone_leaves_reasoning_out_for_vllm_serve() -> None:
    template = jinja2.Template(Path(Registry.load(THINKING[0]).spec.chat_template).read_text())
    messages = [user("Q1"), assistant("Hm.\n</think>\n\nA1"), {"role": "user", "content": "Q2"}]
    messages[0]["content"] = [{"type": "text", "text": "Q1"}]
    rendered = template.render(messages=messages, add_generation_prompt=True)
    assert rendered == AS_THINKING["an answer with its reasoning"][1]


def test_vllm_serve_hands_the_template_lists_of_parts() -> None:
    renderer = pytest.importorskip("vllm.renderers.hf")
    template = Path(Registry.load(THINKING[0]).spec.chat_template).read_text()
    assert renderer._detect_content_format(template, default="string") == "openai"


def test_a_user_who_writes_that_reasoning_ends_ends_none() -> None:
    conversation = Conversation.from_messages([user("Say </think> twice: </think>")])
    prompt = Registry.load(THINKING[0]).render_prompt(conversation, ["</think>"])
    assert "Say </think> twice: </think>" in prompt.text
    assert "".join(text for text, literal in prompt.pieces() if literal) == "</think>" * 2


# `text_config.hidden_size` of config.json on the hub.
HIDDEN_SIZES = dict(zip(SIZES, [2048, 2560, 4096, 5120, 2048, 4096], strict=True))


def _directory(path: Path, size: str, edition: str, template_file: str) -> Path:
    moe = "-a" in size
    config = {
        "architectures": [f"Qwen3VL{'Moe' if moe else ''}ForConditionalGeneration"],
        "text_config": {"hidden_size": HIDDEN_SIZES[size]},
    }
    (path / "config.json").write_text(json.dumps(config))
    opening = r"<think>\n" if edition == "thinking" else ""
    template = r"{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n" + opening + "' }}{%- endif %}"
    written = template if template_file.endswith("jinja") else json.dumps({"chat_template": template})
    (path / template_file).write_text(written)
    return path


@pytest.mark.parametrize(
    "template_file", ["chat_template.json", "chat_template.jinja", "tokenizer_config.json"]
)
@pytest.mark.parametrize("edition", ["instruct", "thinking"])
@pytest.mark.parametrize("size", SIZES)
def test_a_published_checkpoint_tells_its_size_and_edition(
    size: str, edition: str, template_file: str, tmp_path: Path
) -> None:
    directory = _directory(tmp_path, size, edition, template_file)
    assert Registry.load(directory).spec.model_type == f"qwen3-vl-{size}-{edition}"


def test_a_qwen2_5_vl_of_32b_is_told_by_its_config(tmp_path: Path) -> None:
    config = {"architectures": ["Qwen2_5_VLForConditionalGeneration"], "hidden_size": 5120}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert Registry.load(tmp_path).spec.model_type == "qwen2_5-vl-32b-instruct"


# Parameters in thousand millions, as in the names; two bytes each, and 10 % of a GPU kept free.
WEIGHTS = {"2b": 2.1, "4b": 4.4, "8b": 8.8, "32b": 33.4, "30b-a3b": 31.1, "235b-a22b": 236.0}


@pytest.mark.parametrize("model_type", [*INSTRUCT, *THINKING, "qwen2_5-vl-32b-instruct"])
def test_weights_and_a_context_fit_the_gpus(model_type: str) -> None:
    kwargs = Registry.load(model_type).engine_kwargs()
    gpus = kwargs.get("tensor_parallel_size", 1)
    weights = 2 * WEIGHTS[model_type.partition("-vl-")[2].rpartition("-")[0]]
    needed = weights + 9  # GB; a context of 32,768 tokens takes 8.6 in the dense 32B model
    assert needed < 0.9 * 80 * gpus
    assert gpus == 1 or needed > 0.9 * 80 * gpus / 2
    assert kwargs["max_model_len"] == 32768
    assert kwargs["limit_mm_per_prompt"] == {"video": 0}


@pytest.mark.parametrize("model_type", [*INSTRUCT, *THINKING])
def test_an_image_costs_the_same_in_every_size(model_type: str) -> None:
    adapter = Registry.load(model_type)
    # transformers' smart_resize with factor 32 and the hub's bounds, as for the 8B one.
    sizes = [(336, 336), (672, 672), (1000, 400), (640, 480), (1344, 1344)]
    assert [adapter.count_image_tokens(*size) for size in sizes] == [100, 441, 372, 300, 1764]
