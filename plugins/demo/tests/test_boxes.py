"""Answers with boxes are read as they were meant, and only in the coordinates in which they are written."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm_run import BoxCoordinates, Registry
from vlm_run.boxes import parse_boxes
from vlm_run_demo.boxes import (
    TAGS,
    box_dialogue,
    box_example,
    held_out_boxes,
    make_box_scene,
    overlap,
    where,
    without_tags,
)
from vlm_run_demo.drawing import class_map, edges

seeds = st.integers(min_value=0, max_value=10**6)


@given(seeds)
def test_the_right_answer_is_read_as_the_box_of_its_shape(seed: int) -> None:
    asked = box_example(seed)
    adapter = Registry.load("demo-qwen")
    (box,) = adapter.parse_boxes(asked.answer, [adapter.image_size(*asked.images[0].size)])
    assert f" {box.label}" in asked.messages[-1]["content"][-1]["text"]
    assert box.edges == pytest.approx(asked.edges, abs=0.6 * max(asked.images[0].size) / 1000)


@given(seeds)
def test_a_box_encloses_exactly_what_is_drawn(seed: int) -> None:
    scene = make_box_scene(Random(seed))
    if len(scene.shapes) > 1:
        return
    left, top, right, bottom = class_map(scene).getbbox() or (0, 0, 0, 0)
    # Pillow draws the pixels on an edge.
    assert edges(scene.shapes[0]) == pytest.approx((left, top, right, bottom), abs=1.5)


@pytest.mark.parametrize(
    "wrong",
    [BoxCoordinates(maximum=None), BoxCoordinates(maximum=1), BoxCoordinates(maximum=1000, y_first=True)],
)
def test_in_other_coordinates_right_answers_hardly_overlap(wrong: BoxCoordinates) -> None:
    adapter = Registry.load("demo-qwen")
    overlaps = []
    for asked in held_out_boxes(60):
        boxes = parse_boxes(asked.answer, wrong, [adapter.image_size(*asked.images[0].size)])
        overlaps.append(overlap(boxes[0].edges, asked.edges) if boxes else 0.0)
    assert sorted(overlaps)[30] <= 0.4


@given(seeds)
def test_a_question_names_one_shape_only(seed: int) -> None:
    rng = Random(seed)
    scene = make_box_scene(rng)
    for turn, shape in where(scene, rng):
        label = turn.answer.removeprefix(TAGS[0]).partition(TAGS[1])[0]
        words = {"colour": shape.colour, "kind": shape.kind}
        assert set(label.split()) <= {*words.values(), "shape"}
        alike = [
            other
            for other in scene.shapes
            if all(w in (other.kind, other.colour, "shape") for w in label.split())
        ]
        assert alike == [shape]


def test_overlap_is_intersection_over_union() -> None:
    assert overlap((0, 0, 2, 2), (0, 0, 2, 2)) == 1.0
    assert overlap((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 1, 1), (2, 2, 3, 3)) == 0.0


@given(seeds)
def test_boxes_that_are_not_learned_stand_as_the_engine_returns_them(seed: int) -> None:
    talk = box_dialogue(seed, 6)
    for turn in talk.turns:
        assert turn.is_learned or turn.answer == without_tags(turn.answer)
