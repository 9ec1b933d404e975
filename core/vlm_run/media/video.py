"""Videos as frames: which are decoded, at what size, and when each of them is shown.

OpenCV, which every supported vLLM brings, decodes. It is imported on first use.
"""

from __future__ import annotations

import io
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

from PIL import Image

from vlm_run.errors import MediaError
from vlm_run.media.policy import MIB, MediaPolicy

if TYPE_CHECKING:
    import numpy as np

FrameChoice: TypeAlias = Callable[[int, float], Sequence[int]]
"""From a video's number of frames and its frames per second to the frames to keep, ascending from 0."""
FrameSize: TypeAlias = Callable[[int, int, int], tuple[int, int]]
"""From a frame's width and height in pixels and the number of frames kept to the size to scale them to."""
FrameViewer: TypeAlias = Callable[[Image.Image, float], None]
"""Gets a frame before it is scaled, RGB, and its time in seconds."""

# A file that ends before this share of what its header states is damaged, not merely estimated.
_COMPLETE = 0.9


@dataclass(frozen=True, slots=True)
class Clip:
    """The frames of a video that a model sees.

    Attributes:
        frames: Array of shape (frames, height, width, 3), RGB, of type uint8.
        times: When each frame is shown, in seconds from the start of the video.
        seconds: How long a time the frames stand for.
        duration: Duration of the whole video in seconds.
        size: Width and height in pixels before scaling, upright.
    """

    frames: np.ndarray[Any, np.dtype[np.uint8]]
    times: tuple[float, ...]
    seconds: float
    duration: float
    size: tuple[int, int]

    @property
    def fps(self) -> float:
        """Frames kept per second of the video."""
        return len(self.times) / self.seconds

    def padded(self, multiple: int) -> Clip:
        """The clip with the last frame repeated until the number of frames is a multiple of `multiple`."""
        import numpy as np

        count = len(self.times)
        missing = -count % multiple
        if not missing:
            return self
        frames = np.concatenate([self.frames, np.repeat(self.frames[-1:], missing, axis=0)])
        times = self.times + self.times[-1:] * missing
        return replace(self, frames=frames, times=times, seconds=self.seconds * len(times) / count)


@dataclass(frozen=True, slots=True)
class _Header:
    frames: int
    fps: float
    size: tuple[int, int]

    @property
    def seconds(self) -> float:
        return self.frames / self.fps


class _WrongCountError(Exception):
    """The header's number of frames is not the true one, which is `frames`."""

    def __init__(self, frames: int) -> None:
        super().__init__(frames)
        self.frames = frames


def see_nothing(frame: Image.Image, seconds: float) -> None:
    """The viewer of frames that nobody looks at."""


def sample_video(
    content: bytes,
    policy: MediaPolicy,
    choose: FrameChoice,
    scale: FrameSize,
    view: FrameViewer = see_nothing,
) -> Clip:
    """Decode the chosen frames of a video.

    Frames before the last one chosen are decoded too, one at a time, since most depend on earlier ones; only
    those chosen are kept, already scaled. Times are those of the frames, also where the frame rate varies.

    Args:
        content: The encoded video: MP4, MOV, Matroska, WebM, AVI, MPEG-TS, MPEG-PS, Ogg or FLV.
        policy: Limits on bytes, pixels, frames, duration and time.
        choose: Which frames to keep.
        scale: To what size to scale them.
        view: Called with each of them before it is scaled; from the first one on again if the header's number
            of frames was wrong.

    Raises:
        MediaError: The video is refused, damaged or has no frames, or decoding takes too long.
    """
    container = _check_container(content, policy)
    until = time.monotonic() + policy.video_timeout_s
    header = _read_header(content, container, policy, until)
    for _ in range(2):  # with the header's number of frames, then with the true one
        _check_length(header, policy)
        try:
            return _sample(content, container, header, policy, until, choose, scale, view)
        except _WrongCountError as error:
            header = _Header(error.frames, header.fps, header.size)
    raise _damaged(container, "its number of frames changes from one reading to the next")


def video_container(content: bytes) -> str | None:
    """The name of a video's container by its first bytes; None if it is not a video that is decoded.

    Playlists (HLS, DASH, FFmpeg's concat scripts) are not among them: they name other files and URLs, which
    a decoder would open.
    """
    brand = content[8:12]
    if content[4:8] == b"ftyp" and brand not in (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1"):
        return "MOV" if brand == b"qt  " else "MP4"
    if content[4:8] in (b"moov", b"mdat", b"wide"):  # QuickTime before `ftyp` existed
        return "MOV"
    if content.startswith(b"\x1a\x45\xdf\xa3"):
        return "WebM" if b"webm" in content[:64] else "Matroska"
    if content.startswith(b"RIFF") and content[8:12] == b"AVI ":
        return "AVI"
    if content.startswith(b"\x00\x00\x01\xba"):
        return "MPEG"
    if content[:1] == b"\x47" and content[188:189] == b"\x47":
        return "MPEG-TS"
    if content.startswith(b"OggS"):
        return "Ogg"
    return "FLV" if content.startswith(b"FLV\x01") else None


def _check_container(content: bytes, policy: MediaPolicy) -> str:
    if not content:
        raise MediaError("the video is empty: it has 0 bytes")
    if len(content) > policy.max_video_bytes:
        raise MediaError(f"the video is larger than {policy.max_video_bytes / MIB:g} MiB")
    container = video_container(content)
    if container is None:
        raise MediaError(
            "the data is not a video in a known container",
            hint="Known: MP4, MOV, Matroska, WebM, AVI, MPEG-TS, MPEG-PS, Ogg, FLV.",
        )
    return container


def _check_length(header: _Header, policy: MediaPolicy) -> None:
    if header.seconds > policy.max_video_seconds:
        raise MediaError(
            f"the video lasts {header.seconds:,.0f} s, more than the {policy.max_video_seconds:,g} allowed",
            hint="Cut it, or raise the limit (in Python: MediaPolicy(max_video_seconds=…)).",
        )
    if header.frames > policy.max_video_frames:
        raise MediaError(
            f"the video has {header.frames:,} frames, more than the {policy.max_video_frames:,} allowed",
            hint="Cut it, or raise the limit (in Python: MediaPolicy(max_video_frames=…)).",
        )


def _read_header(content: bytes, container: str, policy: MediaPolicy, until: float) -> _Header:
    """Return what the header states; frames are counted where it does not state their number."""
    cv2 = _import_cv2()
    with _opened(content, container, policy) as capture:
        width, height = (
            int(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )
        if width * height > policy.max_pixels:
            raise MediaError(
                f"the video has {width} × {height} pixels, more than the {policy.max_pixels:,} allowed"
            )
        frames, fps = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
        if not (math.isfinite(fps) and fps > 0):
            raise _damaged(container, "its header states no frame rate")
        if not (math.isfinite(frames) and frames >= 1):
            frames = _count_rest(capture, 0, policy, until)
        if not frames:
            raise _damaged(container, "it has no frame that can be decoded")
    return _Header(int(frames), fps, (width, height))


def _sample(
    content: bytes,
    container: str,
    header: _Header,
    policy: MediaPolicy,
    until: float,
    choose: FrameChoice,
    scale: FrameSize,
    view: FrameViewer,
) -> Clip:
    chosen = choose(header.frames, header.fps)
    with _opened(content, container, policy) as capture:
        grabbed = _grab(capture, content, header, container, policy, until)
        frames: Any = None
        times: list[float] = []
        size = header.size
        wanted = iter(chosen)
        index = next(wanted)
        for number, seconds in grabbed:
            if number != index:
                continue
            pixels = _pixels(capture, container, number)
            view(pixels, seconds)
            if frames is None:
                size = pixels.size
                frames = room_for(len(chosen), scale(*size, len(chosen)), policy)
            target = (frames.shape[2], frames.shape[1])
            # As the processors of models scale frames; a no-op at the right size.
            frames[len(times)] = pixels.resize(target, Image.Resampling.BICUBIC)
            times.append(seconds)
            following = next(wanted, None)
            if following is None:
                break
            index = following
        if chosen[-1] == header.frames - 1 and capture.grab():  # the header states too few
            raise _WrongCountError(_count_rest(capture, header.frames + 1, policy, until))
    return Clip(frames, tuple(times), _span(chosen, header), header.seconds, size)


def _span(chosen: Sequence[int], header: _Header) -> float:
    """Seconds that the chosen frames stand for: from the first to the last and one frame more."""
    return (chosen[-1] - chosen[0] + 1) / header.fps


def _grab(
    capture: Any, content: bytes, header: _Header, container: str, policy: MediaPolicy, until: float
) -> Iterator[tuple[int, float]]:
    """Number and time in seconds of each frame, as it becomes the one that `retrieve` returns.

    Raises:
        MediaError: Decoding takes too long, or the video ends long before it should.
        _WrongCountError: The video ends a little before it should.
    """
    position = _import_cv2().CAP_PROP_POS_MSEC
    seconds = 0.0
    for number in range(header.frames):
        _check_time(until, policy)
        if not capture.grab():
            raise _ends_early(content, number, seconds, header, container)
        seconds = max(seconds, capture.get(position) / 1000)
        yield number, seconds


def _ends_early(
    content: bytes, number: int, seconds: float, header: _Header, container: str
) -> MediaError | _WrongCountError:
    """Return what it means that a video ends after `number` frames, the last of which is at `seconds`."""
    if number == 0:
        return _damaged(container, "none of its frames can be decoded")
    if max(number / header.frames, seconds / header.seconds) >= _COMPLETE:
        return _WrongCountError(number)  # the header's number is an estimate in many containers
    # Where a video was cut without encoding it anew, an edit list hides frames that the header counts.
    if container in ("MP4", "MOV") and b"elst" in content and _has_whole_atoms(content):
        return _WrongCountError(number)
    return _damaged(container, f"it ends after {number:,} of {header.frames:,} frames")


def _has_whole_atoms(content: bytes) -> bool:
    """Whether an MP4 ends where its last atom does, so that it was not cut off."""
    at = 0
    while at + 8 <= len(content):
        size = int.from_bytes(content[at : at + 4])
        if size == 1:  # the size follows in 64 bits
            size = int.from_bytes(content[at + 8 : at + 16])
        if size == 0:  # to the end of the file
            return True
        if size < 8:
            return False
        at += size
    return at == len(content)


def _count_rest(capture: Any, frames: int, policy: MediaPolicy, until: float) -> int:
    """Return the number of frames when `frames` have been read."""
    while frames <= policy.max_video_frames and capture.grab():
        _check_time(until, policy)
        frames += 1
    return frames


def _pixels(capture: Any, container: str, number: int) -> Image.Image:
    done, pixels = capture.retrieve()
    if not done:
        raise _damaged(container, f"frame {number + 1:,} cannot be decoded")
    cv2 = _import_cv2()
    return Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))


def room_for(count: int, size: tuple[int, int], policy: MediaPolicy) -> Any:
    """An array for that many frames.

    Raises:
        MediaError: They have more pixels than the policy allows.
    """
    import numpy as np

    check_frame_pixels(count, size, policy)
    width, height = size
    return np.empty((count, height, width, 3), np.uint8)


def check_frame_pixels(count: int, size: tuple[int, int], policy: MediaPolicy) -> None:
    """Check that this many frames of this width and height in pixels may be kept.

    Raises:
        MediaError: They have more pixels than the policy allows.
    """
    width, height = size
    if count * width * height > policy.max_video_pixels:
        raise MediaError(
            f"{count} frames of {width} × {height} pixels have more than the "
            f"{policy.max_video_pixels:,} pixels allowed in a video",
            hint="Choose fewer frames with num_frames or fps, or smaller ones with max_pixels.",
        )


@contextmanager
def _opened(content: bytes, container: str, policy: MediaPolicy) -> Iterator[Any]:
    cv2 = _import_cv2()
    milliseconds = int(policy.video_timeout_s * 1000)
    options = [
        *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, milliseconds, cv2.CAP_PROP_READ_TIMEOUT_MSEC, milliseconds),
        *(cv2.CAP_PROP_N_THREADS, 1),  # parallelism comes from the renderer processes
    ]
    stream = io.BytesIO(content)  # which OpenCV reads to the end, but does not keep alive
    try:
        capture = cv2.VideoCapture(stream, cv2.CAP_FFMPEG, options)
    except cv2.error as error:
        raise _damaged(container, f"OpenCV cannot open it: {error.err or error}") from None
    try:
        if not capture.isOpened():
            raise _damaged(container, "OpenCV finds no video stream in it that it can decode")
        yield capture
    finally:
        capture.release()


def _check_time(until: float, policy: MediaPolicy) -> None:
    if time.monotonic() > until:
        raise MediaError(
            f"decoding the video takes longer than {policy.video_timeout_s:g} s",
            hint="Cut it or make its frames smaller, or raise the limit (MediaPolicy(video_timeout_s=…)).",
        )


def _damaged(container: str, cause: str) -> MediaError:
    return MediaError(f"the video ({container}) is damaged: {cause}")


def _import_cv2() -> Any:
    # What OpenCV and FFmpeg would print about a broken file is in the error instead.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    try:
        return import_module("cv2")
    except ImportError:
        raise MediaError(
            "videos need OpenCV, which is not installed", hint="pip install opencv-python-headless"
        ) from None
