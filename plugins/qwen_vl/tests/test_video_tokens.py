"""Videos: the frames that vLLM's processor gets, their tokens and their times, on clips of many kinds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from vlm_run import Adapter, Conversation, FrameSelection, Limits, Registry
from vlm_run.errors import ConversationError, MediaError

GENERATIONS = ["qwen2-vl-2b-instruct", "qwen2_5-vl-3b-instruct"]
# Frames, frames per second, width and height in pixels; OpenCV's writer makes odd sides even.
CLIPS = [
    *((1, 25, 64, 64), (2, 25, 64, 64), (3, 30, 98, 64), (5, 1, 320, 240), (7, 60, 240, 320)),
    *((24, 24, 640, 360), (30, 10, 96, 62), (31, 29.97, 128, 720), (50, 12.5, 1280, 720), (61, 30, 56, 28)),
    *((90, 60, 400, 300), (100, 5, 64, 48), (120, 23.976, 200, 100), (200, 2, 32, 32), (500, 25, 160, 90)),
    *((10, 1, 800, 8), (33, 15, 1000, 400), (77, 7, 250, 500), (240, 60, 322, 182), (9, 3, 1920, 1080)),
]


def clip(path: Path, frames: int, fps: float, width: int, height: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, (width, height))
    for number in range(frames):
        writer.write(np.full((height, width, 3), number % 256, np.uint8))
    writer.release()
    return path


@pytest.fixture(scope="module")
def render(checkpoint: Callable[[str], Path]) -> Iterator[Callable[..., Any]]:
    """A function that renders a question about a video with vLLM's processor."""
    from vlm_run.engine.standalone_renderer import renderer_without_engine

    made: dict[Any, Any] = {}
    with ExitStack() as stack:

        def render(adapter: Adapter, source: Any, selection: FrameSelection = FrameSelection()) -> Any:  # noqa: B008
            key = adapter.spec.model_type, adapter.limits
            if key not in made:
                made[key] = stack.enter_context(renderer_without_engine(adapter))
            conversation = Conversation.from_query("What happens?", videos=[source])
            return asyncio.run(made[key].render(conversation.with_frame_selection(selection)))

        yield render


@pytest.fixture
def load(checkpoint: Callable[[str], Path]) -> Callable[..., Adapter]:
    """A function that loads a model type with its checkpoint directory."""
    return lambda model_type, **limits: Registry.load(
        model_type, checkpoint=checkpoint(model_type), limits=Limits(**{"max_videos": 1, **limits})
    )


@pytest.mark.parametrize("model_type", GENERATIONS)
def test_tokens_are_those_of_vllms_processor(
    model_type: str, load: Callable[..., Adapter], render: Callable[..., Any], tmp_path: Path
) -> None:
    adapter = load(model_type)
    facts = adapter.video_facts()
    for frames, fps, width, height in CLIPS:
        rendered = render(adapter, clip(tmp_path / "clip.mp4", frames, fps, width, height))
        chosen = facts.choose_frames(frames, fps, FrameSelection())
        expected = facts.count(width, height, len(chosen), len(chosen) / (frames / fps))
        assert rendered.video_tokens == (expected,), (frames, fps, width, height)


def test_seconds_between_frames_reach_the_model(
    load: Callable[..., Adapter], render: Callable[..., Any], tmp_path: Path
) -> None:
    adapter, source = load("qwen2_5-vl-3b-instruct"), clip(tmp_path / "clip.mp4", 100, 10, 64, 64)

    def seconds(**wanted: Any) -> float:
        rendered = render(adapter, source, FrameSelection(**wanted))
        (item,) = rendered.engine_input["mm_kwargs"]["video"]
        return float(item["second_per_grid_ts"].data)

    assert seconds() == pytest.approx(1.0)  # 20 frames of 10 s, two of which become one
    assert seconds(fps=5) == pytest.approx(0.4)
    assert seconds(num_frames=4) == pytest.approx(5.0)
    assert seconds(start=2, end=3.95, num_frames=4) == pytest.approx(1.0)


def test_a_request_bounds_the_area_of_frames(
    load: Callable[..., Adapter], render: Callable[..., Any], tmp_path: Path
) -> None:
    adapter, source = load("qwen2-vl-2b-instruct"), clip(tmp_path / "clip.mp4", 8, 2, 640, 480)
    assert render(adapter, source).video_tokens == (4 * 23 * 17,)
    assert render(adapter, source, FrameSelection(max_pixels=100_352)).video_tokens == (4 * 13 * 9,)


def test_the_engines_bound_applies_to_frames_too(
    load: Callable[..., Adapter], render: Callable[..., Any], tmp_path: Path
) -> None:
    adapter = load("qwen2-vl-2b-instruct", min_pixels=784, max_pixels=200_704)
    rendered = render(adapter, clip(tmp_path / "clip.mp4", 8, 2, 1280, 720))
    assert rendered.video_tokens == (adapter.video_facts().count(1280, 720, 8, 2.0),) == (4 * 21 * 12,)


def test_the_same_video_and_frames_have_the_same_cache_key(
    load: Callable[..., Adapter], render: Callable[..., Any], tmp_path: Path
) -> None:
    adapter, source = load("qwen2-vl-2b-instruct"), clip(tmp_path / "clip.mp4", 8, 2, 64, 64)

    def key(video: Any, **wanted: Any) -> Any:
        return render(adapter, video, FrameSelection(**wanted)).engine_input["mm_hashes"]["video"]

    assert key(source) == key(source.read_bytes())
    assert key(source) != key(source, num_frames=2)


def test_an_engine_takes_no_videos_unless_asked(
    load: Callable[..., Adapter], render: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(ConversationError, match=r"the engine takes none. Raise it with --max-videos"):
        render(load("qwen2-vl-2b-instruct", max_videos=None), clip(tmp_path / "clip.mp4", 8, 2, 64, 64))


def test_a_damaged_video_fails_with_its_place(
    load: Callable[..., Adapter], render: Callable[..., Any]
) -> None:
    with pytest.raises(MediaError, match=r"message 1, video 1: the data is not a video"):
        render(load("qwen2-vl-2b-instruct"), b"no video")
