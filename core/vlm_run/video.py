"""How a model sees a video, as data: which frames, at what size, and how many tokens they take.

vlm-run chooses the frames itself, by the rule of the model's authors, and vLLM gets them as they are. So the
same video has the same frames offline, in a batch and from a server, under every version of vLLM.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict

from vlm_run.errors import MediaError
from vlm_run.vision import DynamicResolution

if TYPE_CHECKING:
    from vlm_run.media import MediaPolicy
    from vlm_run.media.source import Frames
    from vlm_run.media.video import Clip, FrameViewer


@dataclass(frozen=True, slots=True)
class FrameSelection:
    """Which frames of a video a request wants; None leaves it to the model's own rule.

    Attributes:
        fps: Frames per second of the video; not together with `num_frames`.
        num_frames: Number of frames, evenly spaced; all frames where the video has fewer.
        max_frames: Maximum number of frames.
        start: Where to begin, in seconds from the start of the video.
        end: Where to end, in seconds from the start of the video.
        max_pixels: Maximum area of one frame, in pixels, after scaling.
    """

    fps: float | None = None
    num_frames: int | None = None
    max_frames: int | None = None
    start: float | None = None
    end: float | None = None
    max_pixels: int | None = None


class VideoFacts(BaseModel, ABC):
    """How many frames a model takes of a video, and how its processor treats them.

    The rule for the number of frames is `smart_nframes` of qwen-vl-utils, whose parameters are fields here:
    other families differ in their values.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    fps: float = 2.0
    """Frames per second that the model sees by default."""
    min_frames: int = 4
    """Minimum number of frames of a video that has as many."""
    max_frames: int = 768
    """Maximum number of frames."""
    frame_multiple: int = 1
    """The number of frames is rounded to a multiple of this, for models that join frames."""
    num_frames: int | None = None
    """Number of frames of every video that has as many, for models that see a fixed number; then `fps` and
    `min_frames` have no effect unless a request chooses by `fps`."""

    @abstractmethod
    def count(
        self, width: int, height: int, frames: int, fps: float, times: Sequence[float] | None = None
    ) -> int:
        """The number of prompt tokens that a video takes.

        It must equal the number of tokens by which vLLM's processor replaces the placeholder, including
        those that separate frames and tell their times.

        Args:
            width: Width of the video in pixels.
            height: Height of the video in pixels.
            frames: Number of frames that the model sees.
            fps: Frames that the model sees per second of the video.
            times: When each of these frames is shown, in seconds; needed where the prompt tells it. None if
                they are evenly spaced from 0.

        Raises:
            MediaError: The model does not accept frames of this size.
        """

    @abstractmethod
    def resized(self, width: int, height: int, frames: int) -> tuple[int, int]:
        """Width and height in pixels to which each frame is scaled; it depends on their number.

        Raises:
            MediaError: The model does not accept frames of this size.
        """

    def bounded(self, max_pixels: int | None) -> Self:
        """The facts under a request's bound on the area of frames, in pixels.

        Raises:
            MediaError: The model does not support `max_pixels`.
        """
        if max_pixels is None:
            return self
        raise MediaError("this model does not support max_pixels of a video", hint="Leave it out.")

    def choose_frames(self, available: int, fps: float, selection: FrameSelection) -> list[int]:
        """The frames that the model sees, counted from 0.

        They are evenly spaced from the first to the last frame between `start` and `end`.

        Args:
            available: Number of frames of the video.
            fps: Frames per second of the video.
            selection: What the request wants.

        Raises:
            MediaError: `start` is after the end of the video.
        """
        first, last = _range(available, fps, selection)
        count = self._count_frames(last - first + 1, fps, selection)
        if count == 1:
            return [first]
        step = (last - first) / (count - 1)
        return [round(first + step * number) for number in range(count)]

    def choose_given_frames(self, times: Sequence[float], selection: FrameSelection) -> list[int]:
        """The frames that the model sees of a video that is given as frames, counted from 0.

        All between `start` and `end`, unless the request chooses by `fps` or `num_frames`, or the model takes
        fewer.

        Args:
            times: When each frame is shown, in seconds.
            selection: What the request wants.

        Raises:
            MediaError: No frame is between `start` and `end`.
        """
        start, end = selection.start or 0.0, math.inf if selection.end is None else selection.end
        within = [number for number, seconds in enumerate(times) if start <= seconds <= end]
        if not within:
            raise MediaError(
                f"no frame is between {start:g} s and {_end(selection)}: "
                f"the last of {len(times)} is at {times[-1]:.2f} s"
            )
        most = selection.max_frames or self.max_frames
        if len(within) <= most and selection.fps is None and selection.num_frames is None:
            return within
        length = times[within[-1]] - times[within[0]]
        fps = (len(within) - 1) / length if length else self.fps
        among = replace(selection, start=None, end=None)
        if selection.fps is None and selection.num_frames is None:
            among = replace(among, num_frames=most)
        return [within[place] for place in self.choose_frames(len(within), fps, among)]

    def _count_frames(self, available: int, fps: float, selection: FrameSelection) -> int:
        multiple = self.frame_multiple
        if available < multiple:  # the processor repeats the last frame
            return available
        most = min(selection.max_frames or self.max_frames, available)
        fixed = selection.num_frames or (self.num_frames if selection.fps is None else None)
        if fixed is not None:
            wanted: float = round(fixed / multiple) * multiple
        else:
            least = math.ceil(self.min_frames / multiple) * multiple
            wanted = max(available / fps * (selection.fps or self.fps), min(least, most))
        return max(math.floor(min(wanted, most) / multiple) * multiple, multiple)

    def with_processor_kwargs(self, kwargs: Mapping[str, Any]) -> Self:
        """The facts under the engine's `mm_processor_kwargs`. The default ignores them."""
        return self


def load_clip(
    facts: VideoFacts,
    content: bytes | Frames,
    selection: FrameSelection,
    policy: MediaPolicy,
    scale: Callable[[int, int, int], tuple[int, int]] | None = None,
    view: FrameViewer | None = None,
) -> Clip:
    """Decode the frames of a video that a model sees.

    Args:
        facts: How the model sees videos.
        content: The encoded video, or frames that are encoded or decoded images.
        selection: Which frames the request wants.
        policy: Limits on bytes, pixels, frames, duration and time.
        scale: Gives another size than `facts.resized` does.
        view: Called with each of them before it is scaled, as `sample_video` does.

    Raises:
        MediaError: The video or a frame is refused, damaged or too large.
    """
    from vlm_run.media.frames import clip_of_frames  # imports Pillow
    from vlm_run.media.video import sample_video, see_nothing

    scale, view = scale or facts.resized, view or see_nothing
    if isinstance(content, bytes):
        return sample_video(
            content,
            policy,
            lambda available, fps: facts.choose_frames(available, fps, selection),
            scale,
            view,
        )
    return clip_of_frames(
        content, policy, lambda times: facts.choose_given_frames(times, selection), scale, view
    )


def _range(available: int, fps: float, selection: FrameSelection) -> tuple[int, int]:
    """First and last frame between `start` and `end`, as `calculate_video_frame_range` of qwen-vl-utils."""
    first = math.ceil(max(selection.start or 0.0, 0.0) * fps)
    last = available - 1 if selection.end is None else min(math.floor(selection.end * fps), available - 1)
    if first > last:
        raise MediaError(
            f"there is no frame between {selection.start or 0:g} s and {_end(selection)}: "
            f"the video lasts {available / fps:.2f} s"
        )
    return first, last


def _end(selection: FrameSelection) -> str:
    return "the end" if selection.end is None else f"{selection.end:g} s"


class DynamicVideo(VideoFacts):
    """Each frame keeps its aspect ratio and is scaled to an area between two bounds; two frames become one.

    Used by Qwen2-VL and Qwen2.5-VL. Frames are scaled as `fetch_video` of qwen-vl-utils 0.0.14 scales them,
    and tokens counted as `Qwen2VLProcessingInfo._get_vision_info` in vLLM does.
    """

    frame_multiple: int = 2
    patch_size: int
    """Side of one patch, in pixels."""
    merge_size: int
    """Side, in patches, of the square of patches that becomes one token."""
    min_pixels: int
    """Minimum area of a frame in pixels; smaller ones are enlarged."""
    max_pixels: int
    """Maximum area of a frame in pixels; larger ones are shrunk."""
    total_pixels: int
    """Maximum area of all frames together in pixels, half of them counted since two become one."""

    def count(
        self, width: int, height: int, frames: int, fps: float, times: Sequence[float] | None = None
    ) -> int:
        unit = self.patch_size * self.merge_size
        new_width, new_height = self.resized(width, height, frames)
        return math.ceil(frames / self.frame_multiple) * (new_width // unit) * (new_height // unit)

    def resized(self, width: int, height: int, frames: int) -> tuple[int, int]:
        share = self.total_pixels / frames * self.frame_multiple
        most = max(min(self.max_pixels, share), int(self.min_pixels * 1.05))
        frame = DynamicResolution(
            patch_size=self.patch_size,
            merge_size=self.merge_size,
            min_pixels=min(self.min_pixels, self.max_pixels),
            max_pixels=min(int(most), self.max_pixels),
        )
        frame.check_size(width, height)
        return frame.resized(width, height)

    def bounded(self, max_pixels: int | None) -> Self:
        # Below the model's minimum too, which keeps small videos sharp and is no limit of the processor.
        if max_pixels is None:
            return self
        return self.model_copy(update={"max_pixels": max(min(max_pixels, self.max_pixels), self._smallest)})

    @property
    def _smallest(self) -> int:
        return (self.patch_size * self.merge_size) ** 2

    def with_processor_kwargs(self, kwargs: Mapping[str, Any]) -> Self:
        # The processor would scale frames again to the engine's bounds, which are those of images too.
        size = kwargs.get("size") or {}
        low = kwargs.get("min_pixels") or size.get("shortest_edge") or self.min_pixels
        high = kwargs.get("max_pixels") or size.get("longest_edge") or self.max_pixels
        high = min(high, self.max_pixels)
        return self.model_copy(
            update={"min_pixels": min(max(low, self.min_pixels), high), "max_pixels": high}
        )


class PooledVideo(VideoFacts):
    """Every frame becomes one square, whose patches are pooled, as in LLaVA-OneVision and LLaVA-NeXT-Video.

    Source: `get_num_video_tokens` of `LlavaOnevisionProcessingInfo` and of `LlavaNextVideoProcessingInfo` in
    vLLM.
    """

    image_size: int
    """Side of the square, in pixels."""
    patch_size: int
    """Side of one patch, in pixels."""
    pool_stride: int = 2
    """Side, in patches, of the square of patches that becomes one token."""
    end_tokens: int = 0
    """Tokens after the last frame."""
    crops: bool = False
    """Whether the middle of a frame is cut out; otherwise its aspect ratio changes."""

    def count(
        self, width: int, height: int, frames: int, fps: float, times: Sequence[float] | None = None
    ) -> int:
        side = math.ceil(self.image_size // self.patch_size / self.pool_stride)
        return frames * side * side + self.end_tokens

    def resized(self, width: int, height: int, frames: int) -> tuple[int, int]:
        if not self.crops:
            return self.image_size, self.image_size
        # The processor scales the shorter side, and cuts the middle out.
        scale = self.image_size / min(width, height)
        return max(self.image_size, int(width * scale)), max(self.image_size, int(height * scale))
