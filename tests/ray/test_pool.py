"""A batch over several replicas: every row is answered once, whatever happens to replicas."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vlm_run import Request, Response
from vlm_run.errors import ConversationError, EngineError, PluginError, RequestError

from .rules import CAPACITY, NeverStarts, ask

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

    from vlm_run.ray.pool import Replicas


def numbered(count: int) -> list[Request]:
    return ask(*(f"row {number}" for number in range(count)))


def assert_all_answered(answers: dict[int, Response], count: int) -> None:
    assert {number: answer.response for number, answer in answers.items()} == {
        number: f"row {number}" for number in range(count)
    }


def test_every_row_is_answered_once(replicas: Replicas) -> None:
    answers = list(replicas.as_completed(numbered(300)))
    assert len(answers) == 300
    assert_all_answered(dict(answers), 300)
    assert "2 of 2 replicas" in replicas.status()


def test_a_bad_row_fails_alone(replicas: Replicas) -> None:
    answers = dict(replicas.as_completed(ask("row", "bad", "mistake", "row")))
    assert [answers[number].response for number in (0, 3)] == ["row", "row"]
    assert isinstance(answers[1].error, ConversationError)
    assert str(answers[1].error) == "message 1: a bad row"
    assert isinstance(answers[2].error, PluginError)
    assert "ZeroDivisionError: a mistake" in str(answers[2].error)


def test_rows_are_read_no_further_than_replicas_have_room(replicas: Replicas, gate: Path) -> None:
    taken = 0

    def requests() -> Iterator[Request]:
        nonlocal taken
        for request in ask("row", *["wait"] * 200):
            taken += 1
            yield request

    answers = replicas.as_completed(requests())
    next(answers)
    assert taken <= 2 * CAPACITY + 1
    gate.touch()
    assert len(list(answers)) == 200


def test_a_slow_row_holds_others_back_no_more_than_the_window(replicas: Replicas, gate: Path) -> None:
    answers = replicas.as_completed(ask("wait", *["row"] * 100), window=10)
    before = [next(answers)[0] for _ in range(9)]
    assert sorted(before) == list(range(1, 10))
    gate.touch()
    assert len(list(answers)) == 92


def test_leaving_early_leaves_the_replicas_free_for_the_next_batch(replicas: Replicas) -> None:
    for _ in replicas.as_completed(ask("row", *["wait"] * 50)):
        break
    assert_all_answered(dict(replicas.as_completed(numbered(50))), 50)


def test_killed_replicas_are_replaced_and_lose_no_row(replicas: Replicas) -> None:
    answers = {}
    for count, (number, response) in enumerate(replicas.as_completed(numbered(1000), window=200)):
        assert number not in answers
        answers[number] = response
        if count in (100, 600):
            os.kill(replicas.process_ids()[0], signal.SIGKILL)
    assert_all_answered(answers, 1000)
    assert replicas.deaths == 2
    assert ", 2 died" in replicas.status()


@pytest.mark.parametrize(("question", "others"), [("kill", 5), ("engine dies", 0)])
def test_a_row_that_kills_its_replica_fails_alone(replicas: Replicas, question: str, others: int) -> None:
    requests = [*numbered(others), *ask(question)]
    answers = dict(replicas.as_completed(requests))
    error = answers.pop(others).error
    assert isinstance(error, RequestError)
    assert "2 replicas died while they answered this request and no other" in str(error)
    assert_all_answered(answers, others)


@pytest.mark.parametrize(
    ("dies", "message"),
    [(False, "no such engine option. Try another."), (True, "3 replicas died while they started")],
)
def test_replicas_that_cannot_start_end_the_batch(cluster: Cluster, dies: bool, message: str) -> None:
    from vlm_run.ray.pool import Replicas

    with Replicas(NeverStarts(dies), 1) as replicas, pytest.raises(EngineError, match=message):
        list(replicas.as_completed(numbered(3)))
