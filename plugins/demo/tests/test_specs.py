"""Which of several models of one architecture a checkpoint directory is, and whose prompts are asked with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vlm_run import Conversation, Registry
from vlm_run_demo import CHECKPOINT, QWEN_CHECKPOINT
from vlm_run_demo.dialogues import Example, held_out
from vlm_run_demo.evaluate import request


@pytest.mark.parametrize(
    ("directory", "model_type"), [(CHECKPOINT, "demo-llava"), (QWEN_CHECKPOINT, "demo-qwen")]
)
def test_a_directory_of_the_plugin_tells_its_model_type(directory: Path, model_type: str) -> None:
    assert Registry.load(directory).spec.model_type == model_type


@pytest.mark.parametrize("nested", [False, True])
def test_qwen2_vl_is_not_taken_for_the_demo_model(tmp_path: Path, nested: bool) -> None:
    config: dict[str, Any] = {"architectures": ["Qwen2VLForConditionalGeneration"]}
    sizes = {"hidden_size": 1536, "vocab_size": 151936}
    (tmp_path / "config.json").write_text(json.dumps(config | ({"text_config": sizes} if nested else sizes)))
    assert Registry.load(tmp_path).spec.model_type == "qwen2-vl-2b-instruct"


@pytest.mark.parametrize("example", held_out(40), ids=lambda example: example.kind)
def test_demo_qwen_is_asked_as_qwen2_vl_is(example: Example) -> None:
    conversation = Conversation.from_messages(request(example)["messages"])
    prompts = {
        Registry.load(name).render_prompt(conversation).text for name in ("demo-qwen", "qwen2-vl-2b-instruct")
    }
    assert len(prompts) == 1


def test_the_cost_of_a_image_follows_its_size_and_shape() -> None:
    count = Registry.load("demo-qwen").count_image_tokens
    sizes = [(64, 64), (100, 80), (72, 200), (176, 176), (300, 110)]
    assert [count(width, height) for width, height in sizes] == [16, 30, 33, 36, 40]
