"""Clips show what their questions say, also in the frames that the model sees."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_run import FrameSelection, MediaPolicy, Registry
from vlm_run.media.video import sample_video
from vlm_run_demo.clip_questions import APPEARING, MOVING, clip_example, held_out_clips
from vlm_run_demo.clips import DIRECTIONS, Clip, film, frames, make_appearing, make_moving

seeds = st.integers(min_value=0, max_value=10**6)


def seen_at(clip: Clip) -> list[float]:
    """The times in seconds of the frames that the model sees by default."""
    facts = Registry.load("demo-qwen").video_facts()
    chosen = facts.choose_frames(clip.fps * clip.seconds, clip.fps, FrameSelection())
    return [number / clip.fps for number in chosen]


@given(seeds)
def test_shapes_move_to_the_other_side(seed: int) -> None:
    clip = make_moving(Random(seed))
    first, last = clip.at(0), clip.whole
    assert any(actor.direction for actor in clip.actors)
    for actor, before, after in zip(clip.actors, first.shapes, last.shapes, strict=True):
        if actor.direction is None:
            assert before == after
            continue
        across, down = DIRECTIONS[actor.direction]
        way = (after.x - before.x) * across + (after.y - before.y) * down
        sideways = abs((after.x - before.x) * down) + abs((after.y - before.y) * across)
        assert way > sideways


@given(seeds)
def test_shapes_appear_in_frames_of_their_own(seed: int) -> None:
    """Two frames become one for the model: in none of these pairs do two shapes appear."""
    clip = make_appearing(Random(seed))
    counts = [len(clip.at(time).shapes) for time in seen_at(clip)[1::2]]
    appearing = [actor for actor in clip.actors if actor.since]
    assert len(appearing) >= 2
    assert counts[-1] == len(clip.actors)
    assert all(later - earlier in (0, 1) for earlier, later in pairwise(counts))
    assert len(clip.at(seen_at(clip)[0]).shapes) == len(clip.actors) - len(appearing)


@settings(max_examples=10)
@given(seeds)
def test_a_file_has_the_frames_that_were_painted(seed: int) -> None:
    clip = make_moving(Random(seed))
    images = frames(clip)
    facts = Registry.load("demo-qwen").video_facts()
    read = sample_video(
        film(images, clip.fps),
        MediaPolicy(),
        lambda available, _: range(available),
        lambda width, height, _: (width, height),
    )
    assert read.size == images[0].size
    assert len(read.times) == len(images)
    assert read.times == pytest.approx([number / clip.fps for number in range(len(images))], abs=0.01)
    width, height = facts.resized(*read.size, len(seen_at(clip)))
    assert 4096 <= width * height <= 11264


@pytest.mark.parametrize("seed", range(12))
def test_the_order_of_frames_decides(seed: int) -> None:
    asked = clip_example(seed)
    shuffled = asked.reordered(lambda count: reversed(range(count)))
    assert shuffled.videos != asked.videos
    assert (shuffled.messages, shuffled.answer) == (asked.messages, asked.answer)


def test_held_out_clips_ask_every_kind_of_question() -> None:
    examples = held_out_clips(40)
    assert {example.kind for example in examples} == {*MOVING, *APPEARING}
    assert {example.answer for example in examples} >= {*DIRECTIONS}
