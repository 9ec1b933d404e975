"""Videos that tests make: every frame is a grey that tells its number."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

CODECS = {"mp4": "mp4v", "mov": "mp4v", "mkv": "mp4v", "webm": "VP80", "avi": "MJPG", "ts": "mpg2"}
_STEP = 8  # greys far enough apart to survive compression


def write_video(
    path: Path, frames: int = 25, fps: float = 10.0, size: tuple[int, int] = (96, 64), first: int = 0
) -> Path:
    """Write a video whose frame number n, counted from `first`, has the grey `grey(n)`."""
    code = cv2.VideoWriter_fourcc(*CODECS[path.suffix[1:]])
    writer = cv2.VideoWriter(str(path), code, fps, size)
    assert writer.isOpened(), path
    for number in range(first, first + frames):
        writer.write(np.full((size[1], size[0], 3), grey(number), np.uint8))
    writer.release()
    return path


def grey(number: int) -> int:
    return number * _STEP % 256


def numbers(frames: np.ndarray[Any, Any]) -> list[int]:
    """The numbers, modulo 32, of decoded frames."""
    return [round(float(frame.mean()) / _STEP) % 32 for frame in frames]


def with_frame_times(content: bytes, ticks: Sequence[int]) -> bytes:
    """An MP4 of `write_video` whose frame durations are replaced: its frame rate varies.

    Args:
        content: The MP4; all of its frames have one duration.
        ticks: The number of its frames that have each duration: (count, duration) pairs in one flat list, in
            units of the file's own frame duration.
    """
    at = content.index(b"stts")
    _, entries, count, delta = struct.unpack(">4I", content[at + 4 : at + 20])
    assert (entries, count) == (1, sum(ticks[::2]))
    content = content.replace(b"edts", b"free")  # the edit list, which would hide all frames but the first
    pairs = [
        value for n, length in zip(ticks[::2], ticks[1::2], strict=True) for value in (n, length * delta)
    ]
    return _replaced(content, at, struct.pack(f">{2 + len(pairs)}I", 0, len(pairs) // 2, *pairs))


def cut_by_edit_list(content: bytes, share: float) -> bytes:
    """An MP4 of `write_video` whose edit list shows only the first part of its frames."""
    at = content.index(b"elst")
    count, duration = struct.unpack(">2I", content[at + 8 : at + 16])
    assert count == 1
    return content[: at + 12] + struct.pack(">I", round(duration * share)) + content[at + 16 :]


def index_first(content: bytes) -> bytes:
    """An MP4 of `write_video` with its index before the frames, as videos for the web have it."""
    start = content.index(b"mdat") - 4
    length = int.from_bytes(content[start : start + 4])
    frames, index = content[start : start + length], content[start + length :]
    at = index.index(b"stco") + 8  # where the offsets of frames are, which move by the length of the index
    count = int.from_bytes(index[at : at + 4])
    end = at + 4 + 4 * count
    offsets = struct.unpack(f">{count}I", index[at + 4 : end])
    moved = struct.pack(f">{count}I", *(offset + len(index) for offset in offsets))
    return content[:start] + index[: at + 4] + moved + index[end:] + frames


def rotated(content: bytes) -> bytes:
    """An MP4 of `write_video` with the flag by which phones say that it is turned by 90 degrees."""
    at = content.index(b"tkhd") + 4 + 40  # version, times, ids, duration, layer, volume
    straight = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    assert content[at : at + 36] == straight
    turned = struct.pack(">9i", 0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000)
    return content[:at] + turned + content[at + 36 :]


def _replaced(content: bytes, at: int, body: bytes) -> bytes:
    """Replace the body of the atom whose name is at `at`, in a file with its index at the end."""
    (old,) = struct.unpack(">I", content[at - 4 : at])
    assert content.index(b"mdat") < at  # so that the offsets of frames stay true
    grown = len(body) + 8 - old
    changed = bytearray(content[: at + 4] + body + content[at - 4 + old :])
    for name in (b"stts", b"stbl", b"minf", b"mdia", b"trak", b"moov"):
        where = content.rindex(name, 0, at + 4)
        (length,) = struct.unpack(">I", content[where - 4 : where])
        changed[where - 4 : where] = struct.pack(">I", length + grown)
    return bytes(changed)
