"""Where the Hugging Face cache is, as its own library sees it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vlm_run.checkpoints.hub_cache import snapshot

THEIRS = "from huggingface_hub import constants; print(constants.HF_HUB_CACHE)"


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"XDG_CACHE_HOME": "{home}/xdg"},
        {"HF_HOME": "{home}/hf"},
        {"HF_HOME": "$HOME/hf"},
        {"HUGGINGFACE_HUB_CACHE": "{home}/old"},
        {"HF_HUB_CACHE": "{home}/hub", "HF_HOME": "{home}/hf"},
    ],
    ids=str,
)
def test_the_cache_is_where_their_library_puts_it(
    variables: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("huggingface_hub")
    for name in ("XDG_CACHE_HOME", "HF_HOME", "HUGGINGFACE_HUB_CACHE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(home=tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", THEIRS], env=dict(os.environ), capture_output=True, text=True, check=True
    )
    repository = Path(done.stdout.strip()) / "models--acme--vl-7b"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("0123abc")
    (repository / "snapshots/0123abc").mkdir(parents=True)
    assert snapshot("acme/vl-7b") == repository / "snapshots/0123abc"


@pytest.mark.parametrize("name", ["acme/vl-7b", "", "a\0b", "x" * 5000, "../..", "demo-llava"])
def test_what_is_not_cached_has_no_directory(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert snapshot(name) is None
