"""The suite as a plugin's own tests run it: installed, in a pytest of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import SPEC, TEMPLATE

LIGHT = "specs or placeholder or prompt_agrees"  # what imports neither vLLM nor transformers


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A directory for PYTHONPATH with an installed plugin whose template forgets the images."""
    (tmp_path / "vlm_run_acme-1.0.dist-info").mkdir()
    (tmp_path / "vlm_run_acme-1.0.dist-info/entry_points.txt").write_text(
        "[vlm_run.plugins]\nacme = vlm_run_acme\n"
    )
    (tmp_path / "vlm_run_acme").mkdir()
    (tmp_path / "vlm_run_acme/__init__.py").write_text(SPEC)
    (tmp_path / "vlm_run_acme/acme.jinja").write_text(TEMPLATE.replace("<image>", ""))
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_acme.py").write_text(
        "from vlm_run.testing import conformance_tests\n"
        "test_conformance = conformance_tests('vlm_run_acme')\n"
    )
    return tmp_path


def run_pytest(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # With CI set, pytest repeats whole messages in its summary.
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "BUILD_NUMBER")}
    unused = ("-p", "no:cacheprovider", "-p", "no:schemathesis", "-p", "no:hypothesispytest")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-rA", *unused, *arguments],
        cwd=directory / "tests",
        env={**environment, "PYTHONPATH": str(directory)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_each_check_is_a_test_of_its_own(installed: Path) -> None:
    done = run_pytest(installed, "-k", LIGHT)
    assert "PASSED test_acme.py::test_conformance[specs_are_valid_and_unique]" in done.stdout
    assert "FAILED test_acme.py::test_conformance[acme-7b-one_placeholder_for_each_image]" in done.stdout
    assert "no checkpoint directory is given for this model type" in done.stdout


def test_a_failure_is_told_in_a_sentence_and_without_a_traceback(installed: Path) -> None:
    done = run_pytest(installed, "-k", "one_placeholder")
    sentence = (
        "the conversation 'one image', with 1 images, gives a prompt with 0 placeholders <image>. "
        "The template must write the placeholder once for each part of type 'image'."
    )
    assert done.stdout.count(sentence) == 1
    assert "FAILED test_acme.py::test_conformance[acme-7b-one_placeholder_for_each_image]\n" in done.stdout
    assert "prompt_checks.py" not in done.stdout


def test_a_conftest_may_bring_checkpoint_directories(installed: Path) -> None:
    (installed / "tests/conftest.py").write_text(
        "import pytest\n@pytest.fixture(scope='session')\ndef vlm_run_checkpoints(): return {'mine': '.'}\n"
    )
    done = run_pytest(installed, "-k", "specs")
    assert "does not serve the model type 'mine'" in done.stdout


def test_a_plugin_that_cannot_be_used_is_told_at_collection(installed: Path) -> None:
    (installed / "vlm_run_acme/acme.jinja").unlink()
    done = run_pytest(installed)
    assert done.returncode == 2
    assert "the plugin vlm-run-acme could not be loaded: 'acme-7b': chat_template" in done.stdout


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("acme-7b", "write MODEL_TYPE=DIRECTORY"),
        ("acme-7b=nowhere", "the directory has no config.json"),
        ("other=..", "does not serve the model type 'other'"),
    ],
)
def test_a_wrong_checkpoint_option_is_told(installed: Path, assignment: str, message: str) -> None:
    (installed / "config.json").write_text("{}")
    done = run_pytest(installed, "-k", "specs", f"--vlm-run-checkpoint={assignment}")
    assert message in done.stdout + done.stderr
