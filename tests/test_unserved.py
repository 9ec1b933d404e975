"""Replaced model types, checkpoints distinguished by their template, reasoning in answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vlm_run import Conversation, Registry
from vlm_run.cli import app
from vlm_run.engine import versions
from vlm_run.errors import EngineError
from vlm_run.prompts.conversation import Image, Text


def test_a_replaced_model_type_is_refused_whatever_is_installed() -> None:
    spec = Registry.load("demo-llava").spec.model_copy(update={"vllm": "<0.2", "replaced_by": "other"})
    with pytest.raises(EngineError, match=r"'demo-llava' needs vLLM <0\.2, .* Use 'other' instead"):
        versions.check_serves(spec)


def test_the_list_of_models_says_what_to_use() -> None:
    listed = CliRunner().invoke(app, ["models"]).output
    (row,) = [line for line in listed.splitlines() if line.startswith("qwen-vl-chat ")]
    assert "needs vLLM <0.24; use qwen2-vl-7b-instruct" in row
    rows = json.loads(CliRunner().invoke(app, ["models", "--json"]).output)
    replaced = {row["model_type"]: row["replaced_by"] for row in rows if row["replaced_by"]}
    assert replaced == {"qwen-vl": "qwen2-vl-7b-instruct", "qwen-vl-chat": "qwen2-vl-7b-instruct"}


@pytest.mark.parametrize(
    "written",
    ["{", "[]", '{"chat_template": [{"name": "default", "template": "<think>"}]}', '{"chat_template": null}'],
)
def test_a_template_that_cannot_be_read_decides_nothing(written: str, tmp_path: Path) -> None:
    config = {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "text_config": {"hidden_size": 4096},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "chat_template.json").write_text(written)
    assert Registry.load(tmp_path).spec.model_type == "qwen3-vl-8b-instruct"


def test_answers_are_cut_down_to_what_follows_their_reasoning() -> None:
    conversation = Conversation.from_messages(
        [
            {"role": "user", "content": [{"type": "image", "image": "a.png"}, "Why </end>?"]},
            {"role": "assistant", "content": ["One </end> two", " </e", "nd>\n\nThree", " and four"]},
            {"role": "user", "content": "And?"},
            {"role": "assistant", "content": "Five"},
            {"role": "user", "content": "So?"},
        ]
    )
    cut = conversation.without_reasoning("</end>")
    assert cut.messages[0].parts == (Image("a.png"), Text("Why </end>?"))
    assert cut.messages[1].parts == (Text("Three and four"),)
    assert cut.messages[2:] == conversation.messages[2:]


def test_an_answer_of_reasoning_alone_is_empty() -> None:
    messages = [
        {"role": "user", "content": "Q"},
        {"role": "assistant", "content": "Hm.</end>\n"},
        {"role": "user", "content": "Q"},
    ]
    assert Conversation.from_messages(messages).without_reasoning("</end>").messages[1].parts == ()
