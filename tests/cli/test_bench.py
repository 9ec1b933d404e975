"""`vlm-run bench` where there is nothing to measure says how to go on."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("vllm")
COMMAND = [sys.executable, "-c", "from vlm_run.cli import main; main()", "bench"]


def refusal(*words: str) -> str:
    """What the command says as it fails."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([*COMMAND, *words], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    return done.stderr.splitlines()[-1]


def test_a_size_that_is_none_is_refused() -> None:
    assert refusal("demo-llava", "--size", "672").endswith("Write --size WIDTHxHEIGHT, as in 672x672.")


@pytest.mark.engine
def test_a_model_type_without_weights_or_hub_is_told_where_to_get_dimensions() -> None:
    said = refusal("qwen2-vl-2b-instruct")
    assert "Qwen/Qwen2-VL-2B-Instruct was looked for on the Hugging Face hub" in said
    assert "python benchmarks/checkpoints.py DIRECTORY" in said
