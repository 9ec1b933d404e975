"""Videos: the frames that vLLM's processor gets, their tokens and their times, on clips of many kinds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tokenizers import Tokenizer

from vlm_run import Adapter, Conversation, FrameSelection, Limits, Registry
from vlm_run.errors import ConversationError, MediaError

from .conftest import VIDEO_PREPROCESSOR

GENERATIONS = ["qwen2-vl-2b-instruct", "qwen2_5-vl-3b-instruct", "qwen3-vl-2b-instruct", "qwen3_5-0_8b"]
PATCH_SIZES = dict(zip(GENERATIONS, [14, 14, 16, 16], strict=True))
# Frames, frames per second, width and height in pixels; OpenCV's writer makes odd sides even.
CLIPS = [
    *((1, 25, 64, 64), (2, 25, 64, 64), (3, 30, 98, 64), (5, 1, 320, 240), (7, 60, 240, 320)),
    *((24, 24, 640, 360), (30, 10, 96, 62), (31, 29.97, 128, 720), (50, 12.5, 98, 64), (61, 30, 56, 28)),
    *((90, 60, 400, 300), (60, 5, 64, 48), (120, 23.976, 200, 100), (20, 2, 32, 32), (500, 25, 160, 90)),
    *((10, 1, 800, 8), (33, 15, 1000, 400), (77, 7, 250, 500), (240, 60, 322, 182), (9, 3, 64, 48)),
    # Larger than a frame may be: few frames, since each is scaled.
    *((5, 2.5, 900, 700), (2, 1, 1920, 1080)),
]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function that writes a clip, once for all generations."""
    directory = tmp_path_factory.mktemp("clips")

    @cache
    def clip(frames: int, fps: float, width: int, height: int) -> Path:
        return write(directory / f"{frames}-{fps}-{width}-{height}.mp4", frames, fps, width, height)

    return clip


def write(path: Path, frames: int, fps: float, width: int, height: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, (width, height))
    for number in range(frames):
        writer.write(np.full((height, width, 3), number % 256, np.uint8))
    writer.release()
    return path


@pytest.fixture(scope="module")
def render(checkpoint: Callable[[str], Path]) -> Iterator[Callable[..., Any]]:
    """A function that renders a question about a video with vLLM's processor."""
    from vlm_run.testing.vllm_processor import vllm_rendering

    made: dict[Any, Any] = {}
    with ExitStack() as stack:

        def render(adapter: Adapter, source: Any, selection: FrameSelection = FrameSelection()) -> Any:  # noqa: B008
            key = adapter.spec.model_type, adapter.limits
            if key not in made:
                made[key] = stack.enter_context(vllm_rendering(adapter))
            conversation = Conversation.from_query("What happens?", videos=[source])
            return made[key](conversation.with_frame_selection(selection))

        yield render


@pytest.fixture
def load(checkpoint: Callable[[str], Path]) -> Callable[..., Adapter]:
    """A function that loads a model type with its checkpoint directory."""
    return lambda model_type, **limits: Registry.load(
        model_type, checkpoint=checkpoint(model_type), limits=Limits(**{"max_videos": 1, **limits})
    )


@pytest.mark.parametrize("model_type", GENERATIONS)
def test_tokens_are_those_of_vllms_processor(
    model_type: str, load: Callable[..., Adapter], render: Callable[..., Any], clip: Callable[..., Path]
) -> None:
    adapter = load(model_type)
    facts = adapter.video_facts()
    # Qwen3.5's processor is Qwen3-VL's, so a few suffice.
    for frames, fps, width, height in CLIPS[::4] if model_type == GENERATIONS[-1] else CLIPS:
        rendered = render(adapter, clip(frames, fps, width, height))
        chosen = facts.choose_frames(frames, fps, FrameSelection())
        seen, times = len(chosen), [number / fps for number in chosen]
        expected = facts.count(width, height, seen, seen / (frames / fps), times)
        assert rendered.video_tokens == (expected,), (frames, fps, width, height)
        (item,) = rendered.engine_input["mm_kwargs"]["video"]
        patches = [side * PATCH_SIZES[model_type] for side in item["video_grid_thw"].data.tolist()[1:]]
        assert patches[::-1] == list(facts.resized(width, height, seen)), (frames, fps, width, height)


def test_seconds_between_frames_reach_the_model(
    load: Callable[..., Adapter], render: Callable[..., Any], clip: Callable[..., Path]
) -> None:
    adapter, source = load("qwen2_5-vl-3b-instruct"), clip(100, 10, 64, 64)

    def seconds(**wanted: Any) -> float:
        rendered = render(adapter, source, FrameSelection(**wanted))
        (item,) = rendered.engine_input["mm_kwargs"]["video"]
        return float(item["second_per_grid_ts"].data)

    assert seconds() == pytest.approx(1.0)  # 20 frames of 10 s, two of which become one
    assert seconds(fps=5) == pytest.approx(0.4)
    assert seconds(num_frames=4) == pytest.approx(5.0)
    assert seconds(start=2, end=3.95, num_frames=4) == pytest.approx(1.0)


def test_times_of_pairs_of_frames_are_in_the_prompt_of_qwen3(
    load: Callable[..., Adapter], render: Callable[..., Any], clip: Callable[..., Path]
) -> None:
    adapter, source = load("qwen3-vl-2b-instruct"), clip(130, 10, 64, 64)

    def times(**wanted: Any) -> list[str]:
        ids = render(adapter, source, FrameSelection(**wanted)).engine_input["prompt_token_ids"]
        tokenizer = Tokenizer.from_file(str(Path(adapter.source) / "tokenizer.json"))
        return re.findall(r"<([\d.]+) seconds>", tokenizer.decode(ids))

    assert times(num_frames=4) == ["2.1", "10.8"]  # the means of 0 and 4.3, and of 8.6 and 12.9
    assert times(num_frames=4, start=6, end=12) == ["7.0", "11.0"]
    assert times(fps=0.5) == ["1.3", "6.5", "11.6"]


@pytest.mark.parametrize("capped", [True, False])
def test_qwen3s_processor_leaves_frames_as_they_are_with_and_without_its_cap(capped: bool) -> None:
    transformers = pytest.importorskip("transformers")
    processor = transformers.Qwen3VLVideoProcessor(**VIDEO_PREPROCESSOR, cap_pixels_per_frame=capped)
    facts = Registry.load("qwen3-vl-2b-instruct").video_facts()
    for count in (2, 4, 30, 32, 34, 120, 768):
        for size in ((64, 64), (322, 182), (1280, 720), (1080, 1920), (3840, 2160), (800, 8)):
            width, height = facts.resized(*size, count)
            tokens = processor.get_num_of_video_patches(count, height, width) // 4
            assert tokens == count // 2 * (width // 32) * (height // 32), (count, size)


def test_a_request_bounds_the_area_of_frames(
    load: Callable[..., Adapter], render: Callable[..., Any], clip: Callable[..., Path]
) -> None:
    adapter, source = load("qwen2-vl-2b-instruct"), clip(8, 2, 640, 480)
    assert render(adapter, source).video_tokens == (4 * 23 * 17,)
    assert render(adapter, source, FrameSelection(max_pixels=100_352)).video_tokens == (4 * 13 * 9,)


def test_the_engines_bound_applies_to_frames_too(
    load: Callable[..., Adapter], render: Callable[..., Any], clip: Callable[..., Path]
) -> None:
    adapter = load("qwen2-vl-2b-instruct", min_pixels=784, max_pixels=200_704)
    rendered = render(adapter, clip(8, 2, 1280, 720))
    assert rendered.video_tokens == (adapter.video_facts().count(1280, 720, 8, 2.0),) == (4 * 21 * 12,)


def test_the_engines_bound_applies_to_all_frames_of_qwen3_together(
    load: Callable[..., Adapter], render: Callable[..., Any], clip: Callable[..., Path]
) -> None:
    adapter = load("qwen3-vl-2b-instruct", min_pixels=65_536, max_pixels=1_048_576)
    for size in ((1280, 720), (64, 64)):
        rendered = render(adapter, clip(8, 2, *size))
        assert rendered.video_tokens == (adapter.video_facts().count(*size, 8, 2.0),)
    assert adapter.video_facts().resized(1280, 720, 8) == (480, 256)


def test_the_same_video_and_frames_have_the_same_cache_key(
    load: Callable[..., Adapter], render: Callable[..., Any], clip: Callable[..., Path]
) -> None:
    adapter, source = load("qwen2-vl-2b-instruct"), clip(8, 2, 64, 64)

    def key(video: Any, **wanted: Any) -> Any:
        return render(adapter, video, FrameSelection(**wanted)).engine_input["mm_hashes"]["video"]

    assert key(source) == key(source.read_bytes())
    assert key(source) != key(source, num_frames=2)


def test_an_engine_takes_no_videos_unless_asked(
    load: Callable[..., Adapter], render: Callable[..., Any], clip: Callable[..., Path]
) -> None:
    with pytest.raises(ConversationError, match=r"the engine takes none. Raise it with --max-videos"):
        render(load("qwen2-vl-2b-instruct", max_videos=None), clip(8, 2, 64, 64))


def test_a_damaged_video_fails_with_its_place(
    load: Callable[..., Adapter], render: Callable[..., Any]
) -> None:
    with pytest.raises(MediaError, match=r"message 1, video 1: the data is not a video"):
        render(load("qwen2-vl-2b-instruct"), b"no video")
