"""Shell completion, as bash asks for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import run

VLM_RUN = str(Path(sys.executable).with_name("vlm-run"))
HEAVY = ["torch", "vllm", "transformers", "PIL", "numpy", "datasets"]


def question_of_bash(line: str) -> dict[str, str]:
    """The environment in which bash runs the command for the completions of a line."""
    place = str(len(line.split(" ")) - 1)
    return {"_VLM_RUN_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": place}


@pytest.mark.parametrize(
    ("line", "completions"),
    [
        ("vlm-run inf", ["infer"]),
        ("vlm-run plugin n", ["new"]),
        ("vlm-run infer --val", ["--val-dataset"]),
        ("vlm-run infer demo-l", ["demo-llava"]),
        ("vlm-run infer --model_type demo-l", ["demo-llava"]),
        ("vlm-run serve demo-l", ["demo-llava"]),
        ("vlm-run explain demo-l", ["demo-llava"]),
        ("vlm-run verify demo-l", ["demo-llava"]),
        ("vlm-run infer demo-llava demo-l", []),  # a question
    ],
)
def test_commands_options_and_model_types_are_completed(
    line: str, completions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in question_of_bash(line).items():
        monkeypatch.setenv(name, value)
    assert run().stdout.split() == completions


def test_completion_imports_no_model_library() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", VLM_RUN],
        env={**os.environ, **question_of_bash("vlm-run infer demo-l")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "demo-llava" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {*HEAVY}
