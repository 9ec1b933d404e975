"""`vlm-run plugin check`, on installed plugins."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from vlm_run.cli import app
from vlm_run.errors import VlmRunError
from vlm_run.plugins.discovery import installed_plugins

PLUGIN = """
from vlm_run import FixedResolution, ModelSpec, hookimpl

@hookimpl
def model_specs():
    facts = dict(
        architecture="LlavaForConditionalGeneration",
        image_placeholder="<image>",
        vision=FixedResolution(image_size=336, patch_size=14),
    )
    return [
        ModelSpec(model_type="good", chat_template="good.jinja", **facts),
        ModelSpec(model_type="bad", chat_template="bad.jinja", **facts),
    ]
"""
GOOD = """
{%- for message in messages %}{{ message.role }}: {% for part in message.content %}
{%- if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}{% endfor -%}
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """A function that installs a plugin under a name, with its source."""

    def make(name: str, source: str) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(source)
        (tmp_path / name / "good.jinja").write_text(GOOD)
        (tmp_path / name / "bad.jinja").write_text(GOOD.replace("<image>", ""))
        (tmp_path / f"{name}-1.0.dist-info").mkdir()
        (tmp_path / f"{name}-1.0.dist-info/entry_points.txt").write_text(f"[vlm_run.plugins]\nit = {name}\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        installed_plugins.cache_clear()

    yield make
    installed_plugins.cache_clear()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["plugin", "check", *arguments])


def test_a_table_says_what_failed_and_where(install: Callable[[str, str], None]) -> None:
    install("vlm_run_half", PLUGIN)
    done = run("vlm-run-half")
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["check", "result", "detail"]
    rows = [line for line in lines if line.startswith("one placeholder for each image")]
    assert len(rows) == 2
    assert "passed   good" in rows[0]
    assert "failed   bad: the conversation 'one image'" in rows[1]
    assert "2 failed" not in lines[-1]
    assert "1 failed" in lines[-1]


def test_json_has_a_row_for_each_check_of_each_model_type(install: Callable[[str, str], None]) -> None:
    install("vlm_run_halves", PLUGIN)
    done = run("vlm_run_halves", "--json")
    assert done.exit_code == 1
    rows = json.loads(done.stdout)
    assert {frozenset(row) for row in rows} == {frozenset({"check", "model_type", "result", "detail"})}
    (failed,) = [row for row in rows if row["result"] == "failed"]
    assert (failed["check"], failed["model_type"]) == ("one_placeholder_for_each_image", "bad")


def test_a_healthy_plugin_passes() -> None:
    done = run("vlm-run-llava")
    assert done.exit_code == 0, done.stdout
    assert ", 0 failed, " in done.stdout


def test_a_plugin_that_was_left_out_fails_with_its_cause(install: Callable[[str, str], None]) -> None:
    install("vlm_run_gone", "import no_such_module")
    done = run("vlm-run-gone")
    assert done.exit_code == 1
    assert "ModuleNotFoundError: No module named 'no_such_module'" in done.stdout


def test_what_a_plugin_prints_stays_out_of_the_json(install: Callable[[str, str], None]) -> None:
    install("vlm_run_loud", "print('hello')\n" + PLUGIN)
    assert json.loads(run("vlm-run-loud", "--json").stdout)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vlm-run-none"], "the plugin vlm-run-none is not installed"),
        (["vlm-run-llava", "--checkpoint", "folder"], "names no directory"),
        (["vlm-run-llava", "--checkpoint", "llava1_5-7b-instruct=/nowhere"], "no config.json"),
    ],
)
def test_what_cannot_be_checked_is_an_error(arguments: list[str], message: str) -> None:
    done = run(*arguments)
    assert isinstance(done.exception, VlmRunError)
    assert message in str(done.exception)


def test_a_checkpoint_of_another_model_type_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    done = run("vlm-run-llava", "--checkpoint", f"other={tmp_path}")
    assert isinstance(done.exception, VlmRunError)
    assert "does not serve the model type 'other'" in str(done.exception)
