"""Twenty kills of a running batch lose no row and write none twice, with real vLLM answering."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from vlm_run import Engine


@pytest.fixture(scope="module")
def kill_batch() -> Any:
    """`tests/kill_batch.py`, which is also a command."""
    file = Path(__file__).parents[1] / "kill_batch.py"
    spec = importlib.util.spec_from_file_location("kill_batch", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kill_batch"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("kills", "unordered"), [(15, False), (5, True)], ids=["in order", "unordered"])
def test_kills_lose_no_row_and_double_none(
    kill_batch: Any, engine: Engine, tmp_path: Path, kills: int, unordered: bool
) -> None:
    tally = kill_batch.kill_again_and_again(
        engine, tmp_path, rows=12 * kills, kills=kills, seed=kills, unordered=unordered
    )
    assert tally == kill_batch.Tally(kills=kills, lost=0, doubled=0, differing=0)
