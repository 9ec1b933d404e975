"""A trace is summed up per image: the kinds of work, the slowest kernels, and when the device was idle."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from vlm_run.bench.profile import summarize
from vlm_run.errors import EngineError


def trace(directory: Path, *events: dict[str, Any]) -> Path:
    file = directory / "trace.json.gz"
    with gzip.open(file, "wt") as opened:
        json.dump({"traceEvents": [{"ph": "X", "tid": 1, **event} for event in events]}, opened)
    return file


def test_kernels_are_grouped_and_idle_time_is_what_none_of_them_covers(tmp_path: Path) -> None:
    file = trace(
        tmp_path,
        {"cat": "cpu_op", "name": "aten::mm", "ts": 0, "dur": 9000},
        {"cat": "kernel", "name": "nvjet_tst_128x256", "ts": 0, "dur": 4000},
        {"cat": "kernel", "name": "flash_fwd_kernel", "ts": 3000, "dur": 2000},
        {"cat": "gpu_memcpy", "name": "Memcpy HtoD (Pinned -> Device)", "ts": 7000, "dur": 1000},
    )
    profile = summarize(file, 2, {"engine": 1.0})
    assert profile.wall == 4.0
    assert profile.idle == 1.0
    assert profile.device == {"matrix products": 2.0, "attention": 1.0, "copies": 0.5}
    assert [*profile.slowest] == [
        "nvjet_tst_128x256",
        "flash_fwd_kernel",
        "Memcpy HtoD (Pinned -> Device)",
    ]


def test_without_a_gpu_operators_count_without_those_inside_them(tmp_path: Path) -> None:
    file = trace(
        tmp_path,
        {"cat": "cpu_op", "name": "aten::linear", "ts": 0, "dur": 5000},
        {"cat": "cpu_op", "name": "aten::copy_", "ts": 1000, "dur": 2000},
        {"cat": "cpu_op", "name": "aten::silu", "ts": 6000, "dur": 1000},
    )
    profile = summarize(file, 1, {})
    assert profile.device == {"matrix products": 3.0, "copies": 2.0, "other kernels": 1.0}
    assert profile.idle == 1.0
    assert profile.to_dict()["ms_per_image"]["wall"] == 7.0


def test_a_trace_without_work_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="contains no kernels"):
        summarize(trace(tmp_path, {"cat": "user_annotation", "name": "x", "ts": 0, "dur": 1}), 1, {})
