"""PaddleOCR-VL: tasks, prompts as the published templates render them, versions, image tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlm_run import Conversation, Limits, Registry, Request
from vlm_run.testing.conversations import IMAGE, assistant, system, user

TAG = "<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>"
ANSWERS = {"paddleocr-vl": "Assistant: ", "paddleocr-vl-1_6": "Assistant:\n"}
"""How an answer begins."""


@pytest.mark.parametrize(("model_type", "answer"), ANSWERS.items())
def test_a_task_is_the_text_after_the_image(model_type: str, answer: str) -> None:
    conversation = Request.parse({"task": "table", "images": ["page.png"]}).conversation
    prompt = Registry.load(model_type).render_prompt(conversation)
    assert prompt.text == f"<|begin_of_sentence|>User: {TAG}Table Recognition:\n{answer}"


# The chat template of each version, worked through by hand; ANSWER is how an answer begins.
PROMPTS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "images before texts": ([user("Q1", IMAGE, "Q2")], f"User: {TAG}Q1Q2\nANSWER"),
    "history": (
        [system("S"), user(IMAGE, "Q1"), assistant("A1"), user("Q2")],
        f"S\nUser: {TAG}Q1\nANSWERA1</s>User: Q2\nANSWER",
    ),
}


@pytest.mark.parametrize("situation", PROMPTS)
@pytest.mark.parametrize(("model_type", "answer"), ANSWERS.items())
def test_the_prompt_is_that_of_the_published_template(model_type: str, answer: str, situation: str) -> None:
    messages, expected = PROMPTS[situation]
    prompt = Registry.load(model_type).render_prompt(Conversation.from_messages(messages))
    assert prompt.text == f"<|begin_of_sentence|>{expected}".replace("ANSWER", answer)


@pytest.mark.parametrize(
    ("begin", "model_type"), [("Assistant: ", "paddleocr-vl"), (r"Assistant:\n", "paddleocr-vl-1_6")]
)
def test_a_checkpoint_tells_its_version_by_its_template(begin: str, model_type: str, tmp_path: Path) -> None:
    config = {"architectures": ["PaddleOCRVLForConditionalGeneration"], "model_type": "paddleocr_vl"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    template = '{%- if add_generation_prompt -%}{{- "BEGIN" -}}{%- endif -%}'.replace("BEGIN", begin)
    (tmp_path / "chat_template.jinja").write_text(template)
    assert Registry.load(tmp_path).spec.model_type == model_type


@pytest.mark.parametrize(
    ("model_type", "counts"),
    [
        ("paddleocr-vl", [196, 504, 2691, 224, 3600, 248, 356]),
        ("paddleocr-vl-1_6", [144, 504, 1222, 147, 1225, 162, 167]),
    ],
)
def test_image_tokens_are_those_of_vllms_processor(
    model_type: str, counts: list[int], checkpoint: Callable[[str], Path], vllm_image_tokens: Any
) -> None:
    limits = Limits(max_model_len=16384)
    adapter = Registry.load(model_type, checkpoint=checkpoint(model_type), limits=limits)
    sizes = [(336, 336), (1000, 400), (1920, 1080), (60, 1000), (1800, 1800), (20, 400), (3, 500)]
    assert vllm_image_tokens(adapter, sizes) == counts
    assert [adapter.count_image_tokens(*size) for size in sizes] == counts
