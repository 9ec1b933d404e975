"""The package that a new plugin begins as."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from vlm_run.errors import VlmRunError
from vlm_run.scaffold import NewPlugin, short_name, write

PLAIN = NewPlugin("acme-vl", "acme-vl-7b", "AcmeVLForConditionalGeneration", "acme/vl-7b", "<image>")
AWKWARD = NewPlugin("nine9", "nine-9.1_b", "NineModel", "a.b/c-d_e", "<|pic\"'\\ {index}|>\n")


def test_it_holds_everything_a_package_needs(tmp_path: Path) -> None:
    written = {str(path.relative_to(tmp_path)) for path in write(PLAIN, tmp_path)}
    assert written >= {
        "pyproject.toml",
        "README.md",
        ".github/workflows/ci.yml",
        "vlm_run_acme_vl/__init__.py",
        "vlm_run_acme_vl/templates/acme-vl.jinja",
        "tests/test_conformance.py",
        "tests/test_prompts.py",
    }
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text())["project"]
    assert project["name"] == "vlm-run-acme-vl"
    assert project["entry-points"]["vlm_run.plugins"] == {"acme_vl": "vlm_run_acme_vl"}


@pytest.mark.parametrize("plugin", [PLAIN, AWKWARD], ids=["plain", "awkward"])
def test_its_python_is_clean(plugin: NewPlugin, tmp_path: Path) -> None:
    write(plugin, tmp_path)
    for check in (["check", "--select=E,F,I,UP,B,RUF"], ["format", "--check"]):
        subprocess.run([sys.executable, "-m", "ruff", *check, "-q", "--isolated", str(tmp_path)], check=True)


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(VlmRunError, match="not empty"):
        write(PLAIN, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(VlmRunError, match="exists"):
        write(PLAIN, tmp_path / "notes.txt")


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (("acme", "Acme 7B", "Acme", "acme/vl", "<image>"), "model type 'Acme 7B' must be lower-case"),
        (("acme", "acme", "not a class", "acme/vl", "<image>"), "not a class name"),
        (("acme", "acme", "Acme", "vl", "<image>"), "not a repository"),
        (("acme", "acme", "Acme", "acme/vl", " "), "placeholder is empty"),
    ],
)
def test_invalid_facts_are_refused_before_anything_is_written(
    facts: tuple[str, str, str, str, str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(VlmRunError, match=message):
        write(NewPlugin(*facts), tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "written", ["acme-vl", "Acme VL", "acme_vl", "vlm-run-acme-vl", "vlm_run_acme.vl", " ACME  vl "]
)
def test_a_name_may_be_written_in_many_ways(written: str) -> None:
    assert short_name(written) == "acme-vl"


@pytest.mark.parametrize("written", ["", "9lives", "acme/vl", "ácme", "-", "vlm-run-"])
def test_a_name_that_cannot_be_a_packages_is_refused(written: str) -> None:
    with pytest.raises(VlmRunError, match="cannot name a plugin"):
        short_name(written)
