"""Prompts, as the hub's own chat templates render them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import pytest

from vlm_run import Conversation, Registry
from vlm_run.testing.conversations import IMAGE, assistant, system, user

QWEN2 = ["qwen2-vl-2b-instruct", "qwen2-vl-7b-instruct", "qwen2-vl-72b-instruct"]
QWEN2_5 = [f"qwen2_5-vl-{size}-instruct" for size in ("3b", "7b", "32b", "72b")]
QWEN3 = [f"qwen3-vl-{size}-instruct" for size in ("2b", "4b", "8b", "32b", "30b-a3b", "235b-a22b")]


CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "text alone": [user("Q")],
    "one image": [user(IMAGE, "Q")],
    "two images": [user(IMAGE, IMAGE, "Q")],
    "image behind the text": [user("Q", IMAGE)],
    "image in the first turn": [user(IMAGE, "Q1"), assistant("A1"), user("Q2")],
    "image in both turns": [user(IMAGE, "Q1"), assistant("A1"), user(IMAGE, "Q2")],
    "system message": [system("S"), user("Q")],
}

TAG = "<|vision_start|><|image_pad|><|vision_end|>"
DEFAULT_SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"

# chat_template.json of Qwen/Qwen2-VL-7B-Instruct at db8ce50; Qwen2.5-VL's is the same text, read
# in copies of it (optimum-intel-internal-testing/tiny-random-qwen2.5-vl, MBZUAI/Video-R2).
AS_QWEN2 = {
    "text alone": f"{DEFAULT_SYSTEM}<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n",
    "one image": f"{DEFAULT_SYSTEM}<|im_start|>user\n{TAG}Q<|im_end|>\n<|im_start|>assistant\n",
    "two images": f"{DEFAULT_SYSTEM}<|im_start|>user\n{TAG}{TAG}Q<|im_end|>\n<|im_start|>assistant\n",
    "image behind the text": (f"{DEFAULT_SYSTEM}<|im_start|>user\nQ{TAG}<|im_end|>\n<|im_start|>assistant\n"),
    "image in the first turn": (
        f"{DEFAULT_SYSTEM}<|im_start|>user\n{TAG}Q1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n"
        "<|im_start|>user\nQ2<|im_end|>\n<|im_start|>assistant\n"
    ),
    "image in both turns": (
        f"{DEFAULT_SYSTEM}<|im_start|>user\n{TAG}Q1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n"
        f"<|im_start|>user\n{TAG}Q2<|im_end|>\n<|im_start|>assistant\n"
    ),
    "system message": (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"
    ),
}
# The chat template of Qwen/Qwen3-VL-8B-Instruct, without tools: no default system message.
AS_QWEN3 = {name: prompt.removeprefix(DEFAULT_SYSTEM) for name, prompt in AS_QWEN2.items()}


@pytest.mark.parametrize("situation", CONVERSATIONS)
@pytest.mark.parametrize("model_type", QWEN2 + QWEN2_5 + QWEN3)
def test_prompt_is_that_of_the_hubs_template(model_type: str, situation: str) -> None:
    prompt = Registry.load(model_type).render_prompt(Conversation.from_messages(CONVERSATIONS[situation]))
    assert prompt.text == (AS_QWEN3 if model_type in QWEN3 else AS_QWEN2)[situation]
    assert prompt.literals == ()


@pytest.mark.parametrize("model_type", ["qwen2-vl-7b-instruct", *QWEN3])
def test_template_takes_content_that_is_a_string(model_type: str) -> None:
    template = jinja2.Template(Path(Registry.load(model_type).spec.chat_template).read_text())
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}]
    assert template.render(messages=messages, add_generation_prompt=True) == AS_QWEN2["system message"]


@pytest.mark.parametrize("model_type", ["qwen2-vl-7b-instruct", *QWEN3])
def test_vllm_serve_hands_the_template_lists_of_parts(model_type: str) -> None:
    renderer = pytest.importorskip("vllm.renderers.hf")
    template = Path(Registry.load(model_type).spec.chat_template).read_text()
    assert renderer._detect_content_format(template, default="string") == "openai"
