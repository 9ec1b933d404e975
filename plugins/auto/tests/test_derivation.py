"""What is derived from a checkpoint's files, and what is said when it cannot be derived."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from vlm_run import (
    Conversation,
    EngineError,
    Registry,
    TemplateError,
    UnknownModelError,
    UnknownTokenCountError,
)
from vlm_run.checkpoints.files import read_json
from vlm_run.cli import app
from vlm_run.explain import explain
from vlm_run.plugins.discovery import Plugins

TEMPLATE = """\
{%- for message in messages -%}
    {{- '<|turn|>' + message['role'] + ':' -}}
    {%- for part in message['content'] -%}
        {{- part['text'] if part['type'] == 'text' else '<|image|>' -}}
    {%- endfor -%}
    {{- eos_token -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|turn|>assistant:' -}}{%- endif -%}
"""
TEXT_ONLY = "{%- for message in messages -%}{{- message['content'] + '\\n' -}}{%- endfor -%}"
NUMBERED = """\
{%- set seen = namespace(images=0) -%}
{%- for message in messages -%}
    {%- for part in message['content'] -%}
        {%- if part['type'] == 'image' -%}
            {%- set seen.images = seen.images + 1 -%}{{- '<|image_' + seen.images | string + '|>\\n' -}}
        {%- else -%}{{- part['text'] -}}{%- endif -%}
    {%- endfor -%}
{%- endfor -%}
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A checkpoint of an architecture that nobody knows."""
    directory = tmp_path / "Acme_VL-7B.v2"
    directory.mkdir()
    config = {
        "architectures": ["AcmeForConditionalGeneration"],
        "vision_config": {},
        "text_config": {"max_position_embeddings": 4096},
    }
    tokens = [(0, "</s>"), (1, "<|turn|>"), (2, "<|image|>")]
    _write(directory, "config.json", config)
    _write(directory, "generation_config.json", {"eos_token_id": [0, 1]})
    _write(directory, "tokenizer_config.json", {"eos_token": {"content": "</s>"}, "image_token": "<|image|>"})
    added = [{"id": number, "content": token, "special": True} for number, token in tokens]
    _write(directory, "tokenizer.json", {"added_tokens": added})
    (directory / "chat_template.jinja").write_text(TEMPLATE)
    return directory


def _write(directory: Path, name: str, content: dict[str, Any]) -> None:
    (directory / name).write_text(json.dumps(content))


def test_every_field_comes_with_its_source(directory: Path, only_auto: Plugins) -> None:
    spec = Registry.load(directory, plugins=only_auto).spec
    assert spec.model_type == "acme-vl-7b-v2"
    assert spec.image_placeholder == "<|image|>"
    assert spec.context_length == 4096
    assert spec.control_tokens == ("</s>", "<|turn|>", "<|image|>")
    assert spec.stop == ("</s>", "<|turn|>")
    assert spec.eos_token == "</s>"
    assert spec.derived_from["image_placeholder"] == "chat_template.jinja, rendered with an image"
    assert spec.derived_from["context_length"] == "config.json: text_config.max_position_embeddings"
    assert spec.derived_from["stop"] == "generation_config.json: eos_token_id"


@pytest.mark.parametrize(
    ("class_name", "maximum", "source"),
    [
        ("DeepseekOCRForCausalLM", 999, "run_dpsk_ocr_image.py of deepseek-ai/DeepSeek-OCR"),
        ("InternVLChatModel", 1000, "Chat Data Format"),
        ("AcmeForConditionalGeneration", None, "not known"),
    ],
)
def test_coordinates_of_boxes_are_known_of_families_that_document_them(
    class_name: str, maximum: int | None, source: str, directory: Path, only_auto: Plugins
) -> None:
    config = json.loads((directory / "config.json").read_text())
    _write(directory, "config.json", {**config, "architectures": [class_name]})
    spec = Registry.load(directory, plugins=only_auto).spec
    assert (spec.box_coordinates and spec.box_coordinates.maximum) == maximum
    assert source in spec.derived_from["box_coordinates"]


def test_what_a_user_writes_stays_text(directory: Path, only_auto: Plugins) -> None:
    adapter = Registry.load(directory, plugins=only_auto)
    prompt = adapter.render_prompt(Conversation.from_query("Is <|turn|> a token?", images=["a.png"]))
    assert prompt.text == "<|turn|>user:<|image|>Is <|turn|> a token?</s><|turn|>assistant:"
    assert [text for text, literal in prompt.pieces() if literal] == ["<|turn|>"]


@pytest.mark.parametrize("file", ["chat_template.json", "tokenizer_config.json", "processor_config.json"])
@pytest.mark.parametrize("named", [False, True])
def test_the_template_may_be_in_a_json_file(
    file: str, named: bool, directory: Path, only_auto: Plugins
) -> None:
    (directory / "chat_template.jinja").unlink()
    names = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": TEMPLATE}]
    _write(directory, file, {"chat_template": names if named else TEMPLATE, "eos_token": "</s>"})
    prompt = Registry.load(directory, plugins=only_auto).render_prompt(Conversation.from_query("Q"))
    assert prompt.text.startswith("<|turn|>user:Q")


def test_a_numbered_placeholder_is_recognized(directory: Path, only_auto: Plugins) -> None:
    (directory / "chat_template.jinja").write_text(NUMBERED)
    adapter = Registry.load(directory, plugins=only_auto)
    assert adapter.spec.image_placeholder == "<|image_{index}|>"
    assert adapter.placeholder(2) == "<|image_2|>"


def test_a_template_for_text_gets_the_tokenizers_image_token(directory: Path, only_auto: Plugins) -> None:
    (directory / "chat_template.jinja").write_text(TEXT_ONLY)
    adapter = Registry.load(directory, plugins=only_auto)
    assert adapter.spec.template_content == "text"
    prompt = adapter.render_prompt(Conversation.from_query("Q", images=["a.png", "b.png"]))
    assert prompt.text == "<|image|>\n<|image|>\nQ\n"


def test_without_a_template_the_way_out_is_named(directory: Path, only_auto: Plugins, tmp_path: Path) -> None:
    template = tmp_path / "mine.jinja"
    (directory / "chat_template.jinja").rename(template)
    with pytest.raises(TemplateError, match=r"has no chat template\. Give one with --chat-template"):
        Registry.load(directory, plugins=only_auto)
    adapter = Registry.load(directory, chat_template=template, plugins=only_auto)
    assert adapter.render_prompt(Conversation.from_query("Q")).text.startswith("<|turn|>user:Q")


def test_with_a_given_template_vllms_processor_counts_image_tokens(
    checkpoint: Callable[[str], Path], only_auto: Plugins, tmp_path: Path
) -> None:
    """As for DeepSeek-OCR, whose checkpoint has no template and whose processor only vLLM has."""
    pytest.importorskip("vllm")
    from vlm_run_auto.vllm_facts import image_tokens

    directory = tmp_path / "no-template"
    shutil.copytree(checkpoint("LlavaForConditionalGeneration"), directory)
    template = (directory / "chat_template.jinja").rename(tmp_path / "mine.jinja")
    for name in ("processor_config.json", "tokenizer_config.json"):
        _write(directory, name, {**read_json(directory / name), "chat_template": None})
    spec = Registry.load(directory, chat_template=template, plugins=only_auto).spec
    assert image_tokens(spec, 640, 480) == 576


def test_a_text_model_is_not_served(directory: Path, only_auto: Plugins) -> None:
    _write(directory, "config.json", {"architectures": ["AcmeForCausalLM"]})
    with pytest.raises(UnknownModelError, match="AcmeForCausalLM"):
        Registry.load(directory, plugins=only_auto)


@pytest.mark.parametrize("file", ["tokenizer_config.json", "generation_config.json"])
def test_a_damaged_file_is_named(file: str, directory: Path, only_auto: Plugins) -> None:
    (directory / file).write_text("{")
    with pytest.raises(UnknownModelError, match=file):
        Registry.load(directory, plugins=only_auto)


def test_explain_says_that_the_spec_is_derived_and_tokens_unknown(
    directory: Path, only_auto: Plugins
) -> None:
    conversation = Conversation.from_query("Q", images=["640x480"])
    explanation = explain(Registry.load(directory, plugins=only_auto), conversation)
    assert explanation.images[0].tokens is None
    notes = " ".join(explanation.notes)
    assert "vlm-run-auto derived its spec" in notes
    assert "image tokens are not counted" in notes


def test_an_architecture_that_vllm_lacks_is_named_with_what_to_do(
    directory: Path, only_auto: Plugins
) -> None:
    pytest.importorskip("vllm")
    adapter = Registry.load(directory, plugins=only_auto)
    with pytest.raises(EngineError, match="has no architecture 'AcmeForConditionalGeneration'") as caught:
        adapter.vllm_config()
    assert "--trust-remote-code" in str(caught.value)


def test_a_checkpoint_with_code_of_its_own_is_refused_and_the_code_does_not_run(
    directory: Path, only_auto: Plugins, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("vllm")
    config = {
        "architectures": ["MiniCPMV"],
        "model_type": "minicpmv",
        "vision_config": {},
        "auto_map": {"AutoConfig": "acme_code.Config", "AutoProcessor": "acme_code.Processor"},
    }
    _write(directory, "config.json", config)
    (directory / "acme_code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    adapter = Registry.load(directory, plugins=only_auto)
    with pytest.raises(UnknownTokenCountError):
        adapter.count_image_tokens(640, 480)
    with pytest.raises(EngineError, match="needs Python code of its own") as caught:
        adapter.vllm_config()
    assert "--trust-remote-code" in str(caught.value)
    assert "[y/N]" not in capfd.readouterr().out
    assert not (tmp_path / "ran").exists()


def test_models_shows_each_field_with_its_source(directory: Path) -> None:
    shown = CliRunner().invoke(app, ["models", "--checkpoint", str(directory), "--json"])
    assert shown.exit_code == 0, shown.output
    answer = json.loads(shown.stdout)
    assert (answer["plugin"], answer["derived"]) == ("vlm-run-auto", True)
    fields = {row["field"]: row for row in answer["fields"]}
    assert fields["stop"] == {
        "field": "stop",
        "value": ["</s>", "<|turn|>"],
        "source": "generation_config.json: eos_token_id",
    }


@pytest.mark.engine
def test_a_new_plugin_for_a_checkpoint_passes_its_own_tests(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    source, installed = tmp_path / "vlm-run-acme-vl", tmp_path / "site-packages"
    directory = checkpoint("InternVLForConditionalGeneration")
    new = ["plugin", "new", "acme-vl", "--from-checkpoint", str(directory), "--directory", str(source)]
    done = CliRunner().invoke(app, new)
    assert done.exit_code == 0, done.output
    offline = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet")
    pip = [sys.executable, "-m", "pip", "install", *offline, "--target", str(installed), str(source)]
    subprocess.run(pip, check=True)
    tests = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-rs",
            "-p",
            "no:cacheprovider",
            f"--vlm-run-checkpoint=acme-vl={directory}",
        ],
        cwd=source,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert tests.returncode == 0, tests.stdout
    assert "test_prompts.py ." in tests.stdout


def test_a_new_plugin_for_a_checkpoint_has_its_template_and_tokens(directory: Path, tmp_path: Path) -> None:
    target = tmp_path / "new"
    done = CliRunner().invoke(
        app,
        ["plugin", "new", "acme-vl", "--from-checkpoint", str(directory), "--directory", str(target)],
    )
    assert done.exit_code == 0, done.output
    assert (target / "vlm_run_acme_vl/templates/acme-vl.jinja").read_text() == TEMPLATE
    source = (target / "vlm_run_acme_vl/__init__.py").read_text()
    assert "context_length=4096" in source
    assert "'<|turn|>'" in source
    assert (
        "<|turn|>user:<|image|>What is this?</s><|turn|>assistant:"
        in (target / "tests/test_prompts.py").read_text()
    )
