"""Tensors cross to another process through files in memory, and leave nothing behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlm_run.engine.shared_memory import discard, memory_folder, store, take

DTYPES = (torch.bfloat16, torch.float32, torch.int64, torch.uint8, torch.bool)
SHAPES = st.lists(st.integers(0, 5), max_size=3)


@given(st.lists(st.tuples(st.sampled_from(DTYPES), SHAPES), max_size=5))
def test_tensors_of_any_dtype_and_shape_arrive_as_they_were(
    kinds: list[tuple[torch.dtype, list[int]]],
) -> None:
    value = {"text": "kept", "tensors": [torch.randint(0, 2, shape).to(dtype) for dtype, shape in kinds]}
    with memory_folder() as folder:
        stored = store(value, folder)
        arrived = take(stored)
        assert arrived["text"] == "kept"
        for before, after in zip(value["tensors"], arrived["tensors"], strict=True):  # type: ignore[arg-type]
            assert after.dtype == before.dtype
            assert after.shape == before.shape
            assert torch.equal(after, before)
        assert not [*Path(folder).iterdir()]


def test_a_strided_view_arrives_with_its_own_values() -> None:
    view = torch.arange(24).reshape(4, 6)[:, ::2].T
    with memory_folder() as folder:
        assert torch.equal(take(store(view, folder)), view)


def test_what_is_discarded_leaves_no_file(tmp_path: Path) -> None:
    discard(store(torch.ones(10), str(tmp_path)))
    assert not [*tmp_path.iterdir()]


def test_a_full_file_system_is_an_error_not_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        store(torch.ones(10), str(tmp_path))
    assert not [*tmp_path.iterdir()]
