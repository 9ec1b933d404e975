"""The plugin's own checkpoint directories, for the conformance suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlm_run_demo import CHECKPOINT, QWEN_CHECKPOINT


@pytest.fixture(scope="session")
def vlm_run_checkpoints() -> dict[str, Path]:
    return {"demo-llava": CHECKPOINT, "demo-qwen": QWEN_CHECKPOINT}
