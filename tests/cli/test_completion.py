"""Shell completion, as bash asks for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

VLM_RUN = str(Path(sys.executable).with_name("vlm-run"))
HEAVY = ["torch", "vllm", "transformers", "PIL", "numpy", "datasets"]


def complete(line: str, *python: str) -> subprocess.CompletedProcess[str]:
    words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    return subprocess.run(
        [sys.executable, *python, VLM_RUN],
        env={**os.environ, "_VLM_RUN_COMPLETE": "complete_bash", **words},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


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
def test_commands_options_and_model_types_are_completed(line: str, completions: list[str]) -> None:
    assert complete(line).stdout.split() == completions


def test_completion_imports_no_model_library() -> None:
    done = complete("vlm-run infer demo-l", "-X", "importtime")
    assert "demo-llava" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {*HEAVY}
