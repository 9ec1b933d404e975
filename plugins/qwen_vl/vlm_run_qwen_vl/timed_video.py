"""How Qwen3-VL and its successors see a video: frames in pairs, each after its time as text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

from vlm_run import DynamicResolution, VideoFacts


class TimedVideo(VideoFacts):
    """Two frames become one, before which its time is written: `<0.5 seconds>`.

    The time is the mean of both frames' times. Frames are scaled as `Qwen3VLVideoProcessor` of transformers
    scales them with `cap_pixels_per_frame`: the rule of qwen-vl-utils, which is to be the processor's default
    from 5.22 on. The processor leaves frames of that size as they are with and without it.
    """

    frame_multiple: int = 2
    patch_size: int
    """Side of one patch, in pixels."""
    merge_size: int
    """Side, in patches, of the square of patches that becomes one token."""
    max_pixels: int
    """Maximum area of a frame in pixels; larger ones are shrunk."""
    min_total_pixels: int
    """Minimum area of all frames together in pixels; those of smaller videos are enlarged."""
    max_total_pixels: int
    """Maximum area of all frames together in pixels."""

    def count(
        self, width: int, height: int, frames: int, fps: float, times: Sequence[float] | None = None
    ) -> int:
        unit = self.patch_size * self.merge_size
        new_width, new_height = self.resized(width, height, frames)
        pairs = math.ceil(frames / self.frame_multiple)
        around = 2  # <|vision_start|> and <|vision_end|>
        tokens = pairs * ((new_width // unit) * (new_height // unit) + around)
        if times is None:
            times = [number / fps for number in range(frames)]
        return tokens + sum(_tokens_of_time(seconds) for seconds in self._means(times))

    def resized(self, width: int, height: int, frames: int) -> tuple[int, int]:
        frames = math.ceil(frames / self.frame_multiple) * self.frame_multiple  # the last one is repeated
        most = min(max(self.max_pixels, int(self.min_total_pixels * 1.05)), self.max_total_pixels // frames)
        frame = DynamicResolution(
            patch_size=self.patch_size,
            merge_size=self.merge_size,
            min_pixels=math.ceil(self.min_total_pixels / frames),
            max_pixels=most,
        )
        frame.check_size(width, height)
        return frame.resized(width, height)

    def bounded(self, max_pixels: int | None) -> Self:
        if max_pixels is None:
            return self
        return self.model_copy(update={"max_pixels": min(max_pixels, self.max_pixels)})

    def with_processor_kwargs(self, kwargs: Mapping[str, Any]) -> Self:
        # vLLM applies the engine's bounds, which are those of an image too, to all frames together.
        size = kwargs.get("size") or {}
        low = kwargs.get("min_pixels") or size.get("shortest_edge") or self.min_total_pixels
        high = kwargs.get("max_pixels") or size.get("longest_edge") or self.max_total_pixels
        return self.model_copy(update={"min_total_pixels": low, "max_total_pixels": high})

    def _means(self, times: Sequence[float]) -> list[float]:
        """The time of each pair of frames. vLLM gets times in milliseconds."""
        rounded = [round(seconds * 1000) / 1000 for seconds in times]
        rounded += rounded[-1:] * (-len(rounded) % self.frame_multiple)
        return [(first + second) / 2 for first, second in zip(rounded[::2], rounded[1::2], strict=True)]


def _tokens_of_time(seconds: float) -> int:
    """Tokens of `<0.5 seconds>`: `<`, one for each digit and the point, ` seconds`, `>`."""
    return len(f"{seconds:.1f}") + 3


# video_preprocessor_config.json of Qwen/Qwen3-VL-8B-Instruct, Qwen/Qwen3.5-9B and Qwen/Qwen3.6-27B: `size`
# from 4096 to 25165824. A frame's bound is VIDEO_MAX_TOKEN_NUM of qwen-vl-utils 0.0.14, and the number of
# frames is as `smart_nframes` there has it by default.
VIDEO = TimedVideo(
    patch_size=16,
    merge_size=2,
    max_pixels=768 * 32 * 32,
    min_total_pixels=4096,
    max_total_pixels=25165824,
)
