"""The demo models as functional tests of vlm-run: what is given rightly is answered, what is not is not."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

import pytest

from vlm_run import Engine
from vlm_run_demo.boxes import held_out_boxes
from vlm_run_demo.clip_questions import held_out_clips
from vlm_run_demo.dialogues import held_out
from vlm_run_demo.evaluate import COORDINATES, ORDERS, PROMPTS, ask, load, overlaps, score

EXAMPLES = held_out(300)
FEWER = EXAMPLES[:120]
"""For wrong prompts, which cost far more than these leave to chance."""


@pytest.fixture(scope="module")
def qwen() -> Iterator[Engine]:
    with load("demo-qwen").engine(dtype="float32") as running:
        yield running


def share_right(engine: Engine, prompt: str) -> float:
    examples = EXAMPLES if prompt == "right" else FEWER
    right, asked = score(examples, ask(engine, examples, PROMPTS[prompt]))["all"]
    return right / asked


def test_held_out_questions_are_answered_exactly(engine: Engine) -> None:
    assert share_right(engine, "right") >= 0.95


def test_another_models_template_costs_most_answers(engine: Engine) -> None:
    assert share_right(engine, "another model's template") < 0.5


def test_images_in_the_wrong_place_cost_most_answers(engine: Engine) -> None:
    assert share_right(engine, "images after the question") < 0.6


def test_demo_qwen_answers_held_out_questions(qwen: Engine) -> None:
    assert share_right(qwen, "right") >= 0.97


def test_demo_qwen_is_lost_in_another_models_template(qwen: Engine) -> None:
    assert share_right(qwen, "another model's template") < 0.1


def test_demo_qwen_misses_images_in_the_wrong_place(qwen: Engine) -> None:
    assert share_right(qwen, "images after the question") < 0.7


def test_demo_qwen_tells_where_shapes_are(qwen: Engine) -> None:
    assert median(overlaps(qwen, held_out_boxes(60))) >= 0.7


@pytest.mark.parametrize("coordinates", [name for name in COORDINATES if "as the model" not in name])
def test_boxes_read_in_other_coordinates_miss(qwen: Engine, coordinates: str) -> None:
    assert median(overlaps(qwen, held_out_boxes(30), COORDINATES[coordinates])) <= 0.4


def share_right_of_clips(engine: Engine, order: str) -> float:
    rearrange, examples = ORDERS[order], held_out_clips(40)
    shown = examples if rearrange is None else [each.reordered(rearrange) for each in examples]
    right, asked = score(shown, ask(engine, shown))["all"]
    return right / asked


def test_demo_qwen_answers_questions_about_clips(qwen: Engine) -> None:
    assert share_right_of_clips(qwen, "frames in order") >= 0.9


def test_frames_in_reverse_cost_most_answers_about_clips(qwen: Engine) -> None:
    assert share_right_of_clips(qwen, "frames in reverse") < 0.5
