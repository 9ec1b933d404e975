"""Videos that are given as frames: images with times."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PIL import Image

from vlm_run.errors import MediaError
from vlm_run.media.decode import check_image, decode
from vlm_run.media.load import naming_frame
from vlm_run.media.policy import MediaPolicy
from vlm_run.media.source import Frames
from vlm_run.media.video import Clip, FrameSize, FrameViewer, room_for

_USUAL_FPS = 2.0


def clip_of_frames(
    frames: Frames,
    policy: MediaPolicy,
    choose: Callable[[Sequence[float]], Sequence[int]],
    scale: FrameSize,
    view: FrameViewer,
) -> Clip:
    """The chosen frames of a video that is given as frames.

    Args:
        frames: Encoded or decoded images.
        policy: Limits on bytes, pixels and frames.
        choose: Which frames to keep, from the times of all in seconds.
        scale: To what size to scale them.
        view: Called with each of them before it is scaled.

    Raises:
        MediaError: A frame is refused or damaged, there are too many, or their sizes differ.
    """
    count = len(frames.images)
    if count > policy.max_video_frames:
        raise MediaError(f"the video has {count:,} frames, more than the {policy.max_video_frames:,} allowed")
    times = frames.times or tuple(number / _USUAL_FPS for number in range(count))
    chosen = choose(times)
    first = _decoded(frames, chosen[0], policy)
    pixels = room_for(len(chosen), scale(*first.size, len(chosen)), policy)
    target = (pixels.shape[2], pixels.shape[1])
    for place, index in enumerate(chosen):
        image = first if index == chosen[0] else _decoded(frames, index, policy)
        if image.size != first.size:
            raise MediaError(
                f"frame {index + 1} has {image.width} × {image.height} pixels, but frame {chosen[0] + 1} has "
                f"{first.width} × {first.height}",
                hint="Give frames of one size.",
            )
        view(image, times[index])
        pixels[place] = image.resize(target, Image.Resampling.BICUBIC)
    kept = tuple(times[index] for index in chosen)
    return Clip(pixels, kept, _span(kept), _span(times), first.size)


def _decoded(frames: Frames, index: int, policy: MediaPolicy) -> Image.Image:
    image = frames.images[index]
    with naming_frame(index + 1):
        if isinstance(image, Image.Image):
            return check_image(image, policy)
        assert isinstance(image, bytes)
        return decode(image, policy)


def _span(times: Sequence[float]) -> float:
    """Seconds that frames stand for: from the first to the last and one frame more."""
    if len(times) == 1:
        return 1 / _USUAL_FPS
    return (times[-1] - times[0]) * len(times) / (len(times) - 1)
