"""Reads which frames of a video a request wants."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from itertools import pairwise
from typing import Any

from vlm_run.errors import ConversationError
from vlm_run.media.source import Frames, source_in
from vlm_run.video import FrameSelection

FRAME_FIELDS = ("fps", "num_frames", "max_frames", "start", "end")
"""The fields of a request or of a video part that choose frames."""
_PART_FIELDS = (*FRAME_FIELDS, "max_pixels")
# As qwen-vl-utils writes them.
_ALIASES = {"nframes": "num_frames", "video_start": "start", "video_end": "end"}
_TIMES = ("start", "end")
_JPEGS = "data:video/jpeg;base64,"
"""Before the frames of a video in vLLM's requests, each the base64 of a JPEG, separated by commas."""
_JPEG = "data:image/jpeg;base64,"


def read_selection(fields: Mapping[str, Any], what: str, message_index: int | None = None) -> FrameSelection:
    """Read the fields that choose frames; others are ignored.

    Args:
        fields: A video part, or fields of a request.
        what: What the fields belong to, for errors.
        message_index: The message that they belong to, for errors.

    Raises:
        ConversationError: A field has no sensible value, or fields contradict each other.
    """
    given = {name: fields[name] for name in _PART_FIELDS if fields.get(name) is not None}
    for alias, name in _ALIASES.items():
        if fields.get(alias) is not None:
            given.setdefault(name, fields[alias])
    values = {name: _number(name, value, what, message_index) for name, value in given.items()}
    if "fps" in values and "num_frames" in values:
        raise ConversationError(
            f"{what} has both 'fps' and 'num_frames'",
            hint="Give one of them; max_frames limits what fps gives.",
            message_index=message_index,
        )
    if values.get("start", 0) > values.get("end", math.inf):
        raise ConversationError(
            f"'start' of {what}, {values['start']:g} s, is after its 'end', {values['end']:g} s",
            message_index=message_index,
        )
    return FrameSelection(**values)


def read_video_source(value: Any, fields: Mapping[str, Any], what: str, message_index: int | None) -> Any:
    """The source of a video, in which lists of frames have become `Frames`.

    Args:
        value: A source; a list of frames; an object with `frames` and, if they are known, `times` or
            `sample_fps`; or vLLM's data URI with a sequence of JPEGs.
        fields: What may have `times` or `sample_fps` besides: the video's part.
        what: What the source belongs to, for errors.
        message_index: The message that it belongs to, for errors.

    Raises:
        ConversationError: There are no frames, one has no image, or their times make no sense.
    """
    if isinstance(value, Mapping) and value.get("frames") is not None:
        fields, value = value, value["frames"]
        if not isinstance(value, (list, tuple)):
            raise ConversationError(f"'frames' of {what} must be a list", message_index=message_index)
    if isinstance(value, str) and value[: len(_JPEGS)].lower() == _JPEGS:
        value = [f"{_JPEG}{frame}" for frame in value[len(_JPEGS) :].split(",")]
    if not isinstance(value, (list, tuple)):
        return value
    if not value:
        raise ConversationError(f"{what} has a video without frames", message_index=message_index)
    times = _read_times(fields, len(value), what, message_index)
    frames = tuple(map(source_in, value))
    for number, frame in enumerate(frames, 1):
        if frame is None:
            raise ConversationError(f"frame {number} of {what} has no image", message_index=message_index)
    return Frames(frames, times)


def _read_times(
    fields: Mapping[str, Any], count: int, what: str, message_index: int | None
) -> tuple[float, ...] | None:
    times, rate = fields.get("times"), fields.get("sample_fps")
    if times is None:
        if rate is None:
            return None
        rate = _number("fps", rate, what, message_index)
        return tuple(number / rate for number in range(count))
    if not isinstance(times, (list, tuple)) or len(times) != count:
        raise ConversationError(
            f"'times' of {what} must be a list with a time for each of its {count} frames",
            message_index=message_index,
        )
    read = tuple(_number("start", seconds, what, message_index, "times") for seconds in times)
    if any(later <= earlier for earlier, later in pairwise(read)):
        raise ConversationError(
            f"'times' of {what} do not ascend", hint="Sort the frames.", message_index=message_index
        )
    return read


def with_defaults(selection: FrameSelection, defaults: FrameSelection) -> FrameSelection:
    """The selection with what it leaves open taken from `defaults`.

    >>> with_defaults(FrameSelection(num_frames=8), FrameSelection(fps=1.0, max_pixels=100_000))
    FrameSelection(fps=None, num_frames=8, max_frames=None, start=None, end=None, max_pixels=100000)
    """
    own = {name: value for name, value in asdict(selection).items() if value is not None}
    others = {name: value for name, value in asdict(defaults).items() if value is not None}
    if "fps" in own:
        others.pop("num_frames", None)
    if "num_frames" in own:
        others.pop("fps", None)
    return FrameSelection(**{**others, **own})


def _number(name: str, value: Any, what: str, message_index: int | None, called: str | None = None) -> Any:
    wrong = ConversationError(
        f"'{called or name}' of {what} is not {_MEANING[name]}: {value!r}", message_index=message_index
    )
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise wrong
    if name in _TIMES:
        if value < 0:
            raise wrong
        return float(value)
    if name == "fps":
        if value <= 0:
            raise wrong
        return float(value)
    if value != int(value) or value < 1:
        raise wrong
    return int(value)


_MEANING = {
    "fps": "a number of frames per second",
    "num_frames": "a number of frames",
    "max_frames": "a number of frames",
    "start": "a time in seconds",
    "end": "a time in seconds",
    "max_pixels": "an area in pixels",
}
