"""The demo models as functional tests of their adapters: right prompts answer, wrong ones do not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from vlm_run import Engine, Registry
from vlm_run_demo.dialogues import held_out
from vlm_run_demo.evaluate import PROMPTS, ask, score

EXAMPLES = held_out(300)
FEWER = EXAMPLES[:120]
"""For wrong prompts, which cost far more than these leave to chance."""


@pytest.fixture(scope="module")
def qwen() -> Iterator[Engine]:
    with Registry.load("demo-qwen").engine(dtype="float32") as running:
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
    assert share_right(qwen, "right") >= 0.93


def test_demo_qwen_is_lost_in_another_models_template(qwen: Engine) -> None:
    assert share_right(qwen, "another model's template") < 0.1


def test_demo_qwen_misses_images_in_the_wrong_place(qwen: Engine) -> None:
    assert share_right(qwen, "images after the question") < 0.7
