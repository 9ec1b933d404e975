"""The preview of a video: one of the frames that are decoded anyway."""

from __future__ import annotations

from PIL import Image

_AT_SECONDS = 1.0  # many videos begin in black


class Poster:
    """Keeps the first frame that it sees of those after one second, or the last one of a shorter video.

    Attributes:
        image: The frame at its full size, RGB; None before any.
    """

    def __init__(self) -> None:
        self.image: Image.Image | None = None
        self._seconds = 0.0

    def see(self, frame: Image.Image, seconds: float) -> None:
        """Look at a frame and its time in seconds. Frames are shown in their order."""
        if self._seconds < _AT_SECONDS:
            self.image, self._seconds = frame, seconds
