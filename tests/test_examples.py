"""The example of a third party's plugin: installed for real, it passes its own tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples/internvl"


def code_lines(source: str) -> list[str]:
    return [line for line in source.splitlines() if line.strip() and not line.strip().startswith("#")]


def test_it_is_25_lines_of_python() -> None:
    assert len(code_lines((EXAMPLE / "vlm_run_internvl/__init__.py").read_text())) <= 25


def test_installed_it_passes_its_own_tests(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*install, "--target", tmp_path, EXAMPLE], check=True)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", EXAMPLE / "tests"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # With its checkpoint folder, not one check has a reason to be skipped.
    assert "skipped" not in done.stdout
    assert " passed" in done.stdout
