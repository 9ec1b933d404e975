"""Passes rendered requests between processes: tensors in memory-mapped files, the rest pickled.

A pickle through a pipe would copy every tensor four times and block both processes in the meantime.
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

# Offset of each tensor, so that a view of any dtype is aligned.
_ALIGNMENT = 64
_LEAST_FREE_BYTES = 2**30
_PREFIX = "vlm-run-rendered-"
_NEW_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Stored:
    """An object whose tensors are in a file.

    Attributes:
        pickled: The object, with each tensor replaced by its index.
        tensors: Offset in bytes, dtype and shape of each tensor.
        path: The file; None without tensors.
    """

    pickled: bytes
    tensors: tuple[tuple[int, torch.dtype, tuple[int, ...]], ...]
    path: str | None


class SharedMemoryDirectory:
    """A temporary directory, in memory if `/dev/shm` has enough free space.

    A process that is killed leaves its directory behind, and the next process that creates one removes it.
    A living process holds a lock on its directory, which processes in other containers see too.

    Attributes:
        path: The directory.
    """

    def __init__(self) -> None:
        memory = Path("/dev/shm")
        roomy = memory.is_dir() and shutil.disk_usage(memory).free >= _LEAST_FREE_BYTES
        parent = memory if roomy else Path(tempfile.gettempdir())
        _remove_abandoned(parent)
        self.path = tempfile.mkdtemp(prefix=_PREFIX, dir=parent)
        self._lock = os.open(self.path, os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def new_file(self) -> str:
        """Return the path of a file that does not exist yet."""
        return os.path.join(self.path, uuid.uuid4().hex)

    def remove(self) -> None:
        """Remove the directory with its files."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _remove_abandoned(parent: Path) -> None:
    for directory in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # locked, removed by another just now, or another user's
            if time.time() - directory.stat().st_mtime < _NEW_SECONDS:
                continue  # not locked yet, maybe
            lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(directory, ignore_errors=True)
            finally:
                os.close(lock)


def store(value: Any, path: str) -> Stored:
    """Write an object's tensors to the new file `path`.

    Raises:
        OSError: There is not enough space for them.
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
    """Return the object. Its file is removed, and its memory is freed with its last tensor."""
    whole = torch.empty(0, dtype=torch.uint8)
    if stored.path is not None:
        size = os.path.getsize(stored.path)
        whole = torch.from_file(stored.path, shared=True, size=size, dtype=torch.uint8)
        os.unlink(stored.path)
    tensors = [_view(whole, place) for place in stored.tensors]
    return _Unpickler(io.BytesIO(stored.pickled), tensors).load()


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
