"""Rendered requests between processes: tensors in memory-mapped files, the rest pickled beside them.

A pickle through a pipe would copy every tensor four times and hold both processes up meanwhile.
"""

from __future__ import annotations

import fcntl
import io
import os
import pickle
import shutil
import tempfile
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

# Of each tensor's first byte, so that a view of any dtype is aligned.
_ALIGNMENT = 64
_LEAST_FREE_BYTES = 2**30
_PREFIX = "vlm-run-rendered-"
_NEW_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Stored:
    """An object whose tensors are in a file.

    Attributes:
        pickled: The object, with the number of a tensor in each tensor's place.
        tensors: Of each tensor its offset in bytes, its dtype and its shape.
        path: The file; None without tensors.
    """

    pickled: bytes
    tensors: tuple[tuple[int, torch.dtype, tuple[int, ...]], ...]
    path: str | None


class MemoryFolder:
    """A folder whose files stay in memory, if this machine has one with room.

    A process that is killed leaves its folder behind. The next one to make a folder removes it: who
    lives holds a lock on its own, which also tells processes in other containers.

    Attributes:
        name: Its path.
    """

    def __init__(self) -> None:
        memory = Path("/dev/shm")
        roomy = memory.is_dir() and shutil.disk_usage(memory).free >= _LEAST_FREE_BYTES
        parent = memory if roomy else Path(tempfile.gettempdir())
        _remove_abandoned(parent)
        self.name = tempfile.mkdtemp(prefix=_PREFIX, dir=parent)
        self._lock = os.open(self.name, os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def remove(self) -> None:
        """Remove it and what is in it."""
        shutil.rmtree(self.name, ignore_errors=True)
        os.close(self._lock)


def _remove_abandoned(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # locked, removed by another just now, or another user's
            if time.time() - folder.stat().st_mtime < _NEW_SECONDS:
                continue  # not locked yet, maybe
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def store(value: Any, folder: str) -> Stored:
    """Write an object's tensors to a new file in `folder`.

    Raises:
        OSError: There is no room for them.
    """
    buffer = io.BytesIO()
    pickler = _Pickler(buffer, protocol=pickle.HIGHEST_PROTOCOL)
    pickler.dump(value)
    offset, places = 0, []
    for tensor in pickler.tensors:
        places.append((offset, tensor.dtype, tuple(tensor.shape)))
        offset += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
    if not offset:
        return Stored(buffer.getvalue(), tuple(places), None)
    path = os.path.join(folder, uuid.uuid4().hex)
    try:
        with open(path, "xb") as file:
            # Reserves the room now: a full file system would otherwise kill the process that writes.
            os.posix_fallocate(file.fileno(), 0, offset)
    except OSError:
        Path(path).unlink(missing_ok=True)
        raise
    whole = torch.from_file(path, shared=True, size=offset, dtype=torch.uint8)
    for tensor, place in zip(pickler.tensors, places, strict=True):
        _view(whole, place).copy_(tensor)
    return Stored(buffer.getvalue(), tuple(places), path)


def take(stored: Stored) -> Any:
    """The object; its file is removed, and its memory is freed with its last tensor."""
    whole = torch.empty(0, dtype=torch.uint8)
    if stored.path is not None:
        size = os.path.getsize(stored.path)
        whole = torch.from_file(stored.path, shared=True, size=size, dtype=torch.uint8)
        os.unlink(stored.path)
    tensors = [_view(whole, place) for place in stored.tensors]
    return _Unpickler(io.BytesIO(stored.pickled), tensors).load()


def discard(stored: Stored) -> None:
    """Free an object that nobody takes."""
    if stored.path is not None:
        Path(stored.path).unlink(missing_ok=True)


def _view(whole: torch.Tensor, place: tuple[int, torch.dtype, tuple[int, ...]]) -> torch.Tensor:
    offset, dtype, shape = place
    count = torch.Size(shape).numel()
    return whole[offset : offset + count * dtype.itemsize].view(dtype).view(shape)


class _Pickler(pickle.Pickler):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.tensors: list[torch.Tensor] = []

    def persistent_id(self, obj: Any) -> int | None:
        if not isinstance(obj, torch.Tensor):
            return None
        self.tensors.append(obj.detach())
        return len(self.tensors) - 1


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, tensors: list[torch.Tensor]) -> None:
        super().__init__(file)
        self._tensors = tensors

    def persistent_load(self, pid: int) -> torch.Tensor:
        return self._tensors[pid]
