"""Videos that are given as frames: which are kept, when they are shown, and what is refused."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from vlm_run import FrameSelection, MediaPolicy
from vlm_run.errors import MediaError
from vlm_run.media.load import encoded_video
from vlm_run.media.source import Frames, ImageSource
from vlm_run.media.video import Clip
from vlm_run.video import PooledVideo, load_clip

FACTS = PooledVideo(min_frames=1, max_frames=6, image_size=32, patch_size=8)
POLICY = MediaPolicy()


def frame(number: int, size: tuple[int, int] = (32, 32)) -> Image.Image:
    return Image.new("RGB", size, (number * 8,) * 3)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def load(*images: ImageSource, times: tuple[float, ...] | None = None, **wanted: float) -> Clip:
    content = encoded_video(Frames(images, times), POLICY)
    return load_clip(FACTS, content, FrameSelection(**wanted), POLICY)  # type: ignore[arg-type]


def numbers(clip: Clip) -> list[int]:
    return [round(float(np.mean(pixels)) / 8) for pixels in clip.frames]


def test_all_frames_are_kept_two_a_second_unless_their_times_are_given() -> None:
    images = [frame(0), png(frame(1)), frame(2)]
    clip = load(*images)
    assert numbers(clip) == [0, 1, 2]
    assert clip.times == (0.0, 0.5, 1.0)
    assert clip.fps == pytest.approx(2.0)
    clip = load(*images, times=(3.0, 4.0, 9.0))
    assert clip.times == (3.0, 4.0, 9.0)
    assert clip.seconds == pytest.approx(9.0)


def test_a_model_that_takes_fewer_sees_them_evenly_spaced() -> None:
    assert numbers(load(*map(frame, range(11)))) == [0, 2, 4, 6, 8, 10]
    assert numbers(load(*map(frame, range(11)), max_frames=3)) == [0, 5, 10]


@pytest.mark.parametrize(
    ("wanted", "seen"),
    [
        ({"num_frames": 2}, [0, 4]),
        ({"fps": 1.0}, [0, 4]),
        ({"start": 0.5, "end": 1.5}, [1, 2, 3]),
        ({"start": 1.0, "num_frames": 2}, [2, 4]),
    ],
)
def test_a_request_may_choose_among_them(wanted: dict[str, float], seen: list[int]) -> None:
    assert numbers(load(*map(frame, range(5)), **wanted)) == seen


def test_one_frame_is_a_video_too() -> None:
    clip = load(frame(3), times=(7.0,))
    assert (numbers(clip), clip.times, clip.seconds) == ([3], (7.0,), 0.5)


def test_what_is_refused_names_the_frame() -> None:
    with pytest.raises(MediaError, match=r"frame 2: the data is text, not an image"):
        load(frame(0), b"no image")
    with pytest.raises(MediaError, match=r"frame 2: 'missing.png' is not a file"):
        load(frame(0), "missing.png")
    with pytest.raises(MediaError, match=r"frame 3 has 16 × 8 pixels, but frame 1 has 32 × 32"):
        load(frame(0), frame(1), frame(2, (16, 8)))
    with pytest.raises(MediaError, match=r"no frame is between 5 s and the end: the last of 2 is at 0\.50 s"):
        load(frame(0), frame(1), start=5)


def test_frames_have_the_limits_of_images_and_of_videos() -> None:
    content = Frames((frame(0),) * 4)
    for policy, cause in [
        (MediaPolicy(max_pixels=100), "frame 1: the image has 32 × 32 pixels, more than the 100 allowed"),
        (MediaPolicy(max_video_frames=3), "the video has 4 frames, more than the 3 allowed"),
        (MediaPolicy(max_video_pixels=2000), "4 frames of 32 × 32 pixels have more than the 2,000 pixels"),
    ]:
        with pytest.raises(MediaError) as raised:
            load_clip(FACTS, content, FrameSelection(), policy)
        assert raised.value.cause.startswith(cause)
