"""Plugins that pip installs for real, each of which then passes its own tests.

New plugins as they are written, and the example of a third party's. All at once: vLLM takes
seconds to import.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vlm_run.scaffold import NewPlugin, write

EXAMPLE = Path(__file__).parents[2] / "examples/internvl"
PLAIN = NewPlugin("acme-vl", "acme-vl-7b", "AcmeVLForConditionalGeneration", "acme/vl-7b", "<image>")
AWKWARD = NewPlugin("nine9", "nine-9.1_b", "NineModel", "a.b/c-d_e", "<|pic\"'\\ {index}|>\n")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The outcome of each of the plugins' own tests, by directory and name."""
    pytest.importorskip("vllm")
    directory = tmp_path_factory.mktemp("plugins")
    write(PLAIN, directory / "plain")
    write(AWKWARD, directory / "awkward")
    shutil.copytree(EXAMPLE, directory / "internvl")
    sources = [directory / name for name in ("plain", "awkward", "internvl")]
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*install, "--target", directory / "installed", *sources], check=True)
    tests = [source / "tests" for source in sources]
    options = [
        "-v",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:schemathesis",
        "--import-mode=importlib",
        f"--rootdir={directory}",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *tests],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(directory / "installed")},
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.findall(r"(\S+/test_\w+\.py::\S+) (PASSED|FAILED|ERROR|SKIPPED)", done.stdout)
    assert found, done.stdout + done.stderr
    return {name: outcome if outcome != "FAILED" else done.stdout for name, outcome in found}


@pytest.mark.engine
@pytest.mark.parametrize("directory", ["plain", "awkward", "internvl"])
def test_it_passes_its_own_tests(directory: str, outcomes: dict[str, str]) -> None:
    own = {name: outcome for name, outcome in outcomes.items() if name.startswith(f"{directory}/")}
    assert any("test_conformance" in name for name in own)
    assert set(own.values()) <= {"PASSED", "SKIPPED"}


@pytest.mark.engine
def test_of_the_example_no_test_is_skipped(outcomes: dict[str, str]) -> None:
    skipped = [
        name for name, outcome in outcomes.items() if outcome == "SKIPPED" and name.startswith("internvl/")
    ]
    assert skipped == []


def test_the_example_is_25_lines_of_python() -> None:
    source = (EXAMPLE / "vlm_run_internvl/__init__.py").read_text()
    code = [line for line in source.splitlines() if line.strip() and not line.strip().startswith("#")]
    assert len(code) <= 25
