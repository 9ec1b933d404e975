"""Tensors cross to another process through files in memory, and leave nothing behind."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlm_run.engine.shared_memory import SharedMemoryDirectory, store, take

DTYPES = (torch.bfloat16, torch.float32, torch.int64, torch.uint8, torch.bool)
SHAPES = st.lists(st.integers(0, 5), max_size=3)


@pytest.fixture(scope="module")
def directory() -> Iterator[SharedMemoryDirectory]:
    memory = SharedMemoryDirectory()
    yield memory
    memory.remove()
    assert not Path(memory.path).exists()


@given(kinds=st.lists(st.tuples(st.sampled_from(DTYPES), SHAPES), max_size=5))
def test_tensors_of_any_dtype_and_shape_arrive_as_they_were(
    directory: SharedMemoryDirectory, kinds: list[tuple[torch.dtype, list[int]]]
) -> None:
    value = {"text": "kept", "tensors": [torch.randint(0, 2, shape).to(dtype) for dtype, shape in kinds]}
    arrived = take(store(value, directory.new_file()))
    assert arrived["text"] == "kept"
    for before, after in zip(value["tensors"], arrived["tensors"], strict=True):  # type: ignore[arg-type]
        assert after.dtype == before.dtype
        assert after.shape == before.shape
        assert torch.equal(after, before)
    assert not [*Path(directory.path).iterdir()]


def test_a_strided_view_arrives_with_its_own_values(directory: SharedMemoryDirectory) -> None:
    view = torch.arange(24).reshape(4, 6)[:, ::2].T
    assert torch.equal(take(store(view, directory.new_file())), view)


def test_a_full_file_system_is_an_error_not_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        store(torch.ones(10), str(tmp_path / "tensors"))
    assert not [*tmp_path.iterdir()]


def test_what_a_killed_process_leaves_the_next_one_removes_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("vlm_run.engine.shared_memory._LEAST_FREE_BYTES", 2**80)
    theirs = tmp_path / "vlm-run-rendered-by-hand"
    theirs.write_text("a file, not a directory")
    mine = SharedMemoryDirectory()
    context = get_context("fork")
    started = context.Process(target=_leave_a_directory)
    started.start()
    started.join()
    (left,) = {*tmp_path.iterdir()} - {Path(mine.path), theirs}
    assert [*left.iterdir()]
    an_hour_ago = time.time() - 3600
    for path in (left, Path(mine.path), theirs):
        os.utime(path, (an_hour_ago, an_hour_ago))
    new = SharedMemoryDirectory()
    assert {*tmp_path.iterdir()} == {Path(mine.path), Path(new.path), theirs}


def _leave_a_directory() -> None:
    store(torch.ones(10), SharedMemoryDirectory().new_file())
    os._exit(9)
