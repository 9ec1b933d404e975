"""The rule by which frames are chosen and scaled: worked examples of qwen-vl-utils, and other requests."""

from __future__ import annotations

import pytest

from vlm_run.errors import MediaError
from vlm_run.video import DynamicVideo, FrameSelection

# The constants of qwen-vl-utils 0.0.14 for patches of 14 pixels.
QWEN2 = DynamicVideo(
    patch_size=14,
    merge_size=2,
    min_pixels=128 * 28 * 28,
    max_pixels=768 * 28 * 28,
    total_pixels=int(128000 * 28 * 28 * 0.9),
)
DEFAULT = FrameSelection()


@pytest.mark.parametrize(
    ("available", "fps", "count"),
    [
        *(
            (2, 25, 2),
            (3, 30, 2),
            (25, 25, 4),
            (100, 25, 8),
            (250, 29.97, 16),
            (900, 30, 60),
            (1800, 30, 120),
        ),
        *((60000, 30, 768), (7, 1, 6), (120, 60, 4)),
    ],
)
def test_number_of_frames_is_that_of_smart_nframes(available: int, fps: float, count: int) -> None:
    assert len(QWEN2.choose_frames(available, fps, DEFAULT)) == count


@pytest.mark.parametrize(
    ("selection", "count"),
    [
        (FrameSelection(fps=1.0), 4),
        (FrameSelection(fps=30.0), 100),
        (FrameSelection(num_frames=7), 8),
        (FrameSelection(num_frames=16), 16),
        (FrameSelection(max_frames=9, fps=25), 8),
    ],
)
def test_a_request_may_choose(selection: FrameSelection, count: int) -> None:
    assert len(QWEN2.choose_frames(100, 25, selection)) == count


def test_frames_are_those_of_torchs_linspace() -> None:
    # torch.linspace(0, 99, 8).round(), as in qwen-vl-utils
    assert QWEN2.choose_frames(100, 25, DEFAULT) == [0, 14, 28, 42, 57, 71, 85, 99]


def test_a_request_for_more_frames_than_there_are_gets_all() -> None:
    assert QWEN2.choose_frames(6, 25, FrameSelection(num_frames=100)) == [0, 1, 2, 3, 4, 5]


def test_a_single_frame_is_a_video_too() -> None:
    assert QWEN2.choose_frames(1, 25, DEFAULT) == [0]


def test_frames_between_two_times() -> None:
    assert QWEN2.choose_frames(100, 10, FrameSelection(start=2, end=4, num_frames=4)) == [20, 27, 33, 40]
    assert QWEN2.choose_frames(100, 10, FrameSelection(end=0, num_frames=4)) == [0]
    with pytest.raises(MediaError, match=r"no frame between 12 s and the end: the video lasts 10\.00 s"):
        QWEN2.choose_frames(100, 10, FrameSelection(start=12))


@pytest.mark.parametrize(
    ("video", "resized"),
    [
        ((1280, 720, 120), (1008, 560)),
        ((320, 240, 8), (392, 280)),
        ((97, 63, 4), (420, 280)),
        ((1920, 1080, 768), (644, 336)),  # the more frames, the smaller each
        ((64, 64, 2), (336, 336)),
        ((720, 1280, 300), (560, 1008)),
        ((4000, 30, 10), (4004, 28)),
    ],
)
def test_frames_are_scaled_as_fetch_video_scales_them(
    video: tuple[int, int, int], resized: tuple[int, int]
) -> None:
    assert QWEN2.resized(*video) == resized


def test_two_frames_take_the_tokens_of_one_image() -> None:
    assert QWEN2.count(1280, 720, 120, 2.0) == 60 * 36 * 20
    assert QWEN2.count(1280, 720, 119, 2.0) == 60 * 36 * 20


def test_a_bound_on_the_area_of_frames_goes_below_the_models_minimum() -> None:
    assert QWEN2.bounded(100 * 28 * 28).resized(1280, 720, 8) == (364, 196)
    assert QWEN2.bounded(1).resized(640, 640, 8) == (28, 28)
    assert QWEN2.bounded(10**9) == QWEN2


def test_the_engines_bounds_apply_to_frames_too() -> None:
    bounded = QWEN2.with_processor_kwargs({"max_pixels": 200 * 28 * 28})
    assert bounded.resized(1280, 720, 8) == (504, 280)
    assert QWEN2.with_processor_kwargs({"min_pixels": 4 * 28 * 28, "max_pixels": 16384 * 28 * 28}) == QWEN2


def test_frames_that_are_too_narrow_are_refused() -> None:
    with pytest.raises(MediaError, match="too narrow"):
        QWEN2.resized(4021, 20, 4)
