"""The preview of a video: one of its frames, its size and its duration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from vlm_run.media.policy import MediaPolicy
from vlm_run.media.video import sample_video

_AT_SECONDS = 1.0  # many videos begin in black


@dataclass(frozen=True, slots=True)
class Poster:
    """A frame of a video.

    Attributes:
        image: The frame, RGB, no longer than asked for on either side.
        size: Width and height of the video in pixels, upright.
        seconds: Duration of the video.
    """

    image: Image.Image
    size: tuple[int, int]
    seconds: float


def poster(content: bytes, policy: MediaPolicy, side: int) -> Poster:
    """Decode the frame that is shown after one second, or the last one of a shorter video.

    Args:
        content: The encoded video.
        policy: Limits on bytes, pixels, frames, duration and time.
        side: Maximum width and height of the frame, in pixels.

    Raises:
        MediaError: As `sample_video`.
    """
    seconds = 0.0

    def choose(frames: int, fps: float) -> Sequence[int]:
        nonlocal seconds
        seconds = frames / fps
        return [min(round(_AT_SECONDS * fps), frames - 1)]

    def scale(width: int, height: int, frames: int) -> tuple[int, int]:
        factor = min(1.0, side / max(width, height))
        return max(1, round(width * factor)), max(1, round(height * factor))

    clip = sample_video(content, policy, choose, scale)
    return Poster(Image.fromarray(clip.frames[0]), clip.size, seconds)
