"""tools/vllm_seams.py reads a wheel, and the list that it checks is complete."""

from __future__ import annotations

import runpy
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import vllm

from vlm_run.engine.vllm_seams import SEAMS

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools/vllm_seams.py"


@pytest.fixture(scope="module")
def tool() -> dict[str, Any]:
    return runpy.run_path(str(TOOL))


def test_everything_that_the_core_imports_from_vllm_is_in_the_list(tool: dict[str, Any]) -> None:
    places = (place.partition(":") for seam in SEAMS for place in seam.places)
    listed = {f"{module}:{name.partition('.')[0]}" for module, _, name in places}
    assert tool["imported_names"](ROOT / "core" / "vlm_run") <= listed


def test_the_names_that_plugins_import_are_checked_too(tool: dict[str, Any]) -> None:
    assert "vllm.model_executor.models:phi3v" in {seam.places[0] for seam in tool["plugin_seams"]()}


def test_a_wheel_is_read_without_being_installed(tmp_path: Path) -> None:
    wheel = tmp_path / "vllm-9.9-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("vllm/__init__.py", "__version__ = '9.9'\n")
    run = subprocess.run([sys.executable, TOOL, wheel], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "vllm.v1.engine.async_llm:AsyncLLM.generate: not found\n" in run.stdout
    assert "vllm:__version__" not in run.stdout


def test_the_installed_vllm_breaks_nothing() -> None:
    directory = Path(vllm.__file__).parents[1]
    run = subprocess.run([sys.executable, TOOL, directory], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "")
