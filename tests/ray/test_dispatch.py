"""Rows reach replicas, and every one is answered or given up once, whichever replicas die."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm_run import Conversation, Request
from vlm_run.ray.dispatch import DEATHS_OF_A_ROW, GROUP, Dispatch


def rows(count: int) -> list[Request]:
    return [Request(Conversation.from_query(f"row {number}")) for number in range(count)]


def numbers(sent: dict[str, list[tuple[int, Request]]]) -> dict[str, list[int]]:
    return {name: [number for number, _ in each] for name, each in sent.items()}


def test_rows_go_to_the_replica_with_the_most_room() -> None:
    dispatch = Dispatch(rows(10))
    dispatch.join("a", 2)
    dispatch.join("b", 4)
    assert numbers(dispatch.hand_out(100)) == {"b": [0, 1, 3, 5], "a": [2, 4]}
    assert not dispatch.has_room
    dispatch.answered("a", 2)
    assert numbers(dispatch.hand_out(100)) == {"a": [6]}


def test_no_more_rows_are_taken_than_the_window_beyond_the_oldest_unanswered_one() -> None:
    dispatch = Dispatch(rows(100), window=5)
    dispatch.join("slow", 1)
    dispatch.join("fast", 50)
    taken = numbers(dispatch.hand_out(100))
    assert sum(map(len, taken.values())) == 5
    newest = max(number for each in taken.values() for number in each)
    for number in taken["fast"]:
        if number != 0:
            dispatch.answered("fast", number)
    held_up = dispatch.hand_out(100)
    assert all(number <= newest + 5 for each in numbers(held_up).values() for number in each)


def test_the_rows_of_a_dead_replica_are_retried_where_nothing_else_runs() -> None:
    dispatch = Dispatch(rows(100))
    dispatch.join("a", 3)
    dispatch.join("b", 3)
    sent = numbers(dispatch.hand_out(100))
    assert dispatch.died("a") == []
    assert dispatch.hand_out(100) == {}  # b has rows of its own, and is left to finish them
    for number in sent["b"]:
        dispatch.answered("b", number)
    assert numbers(dispatch.hand_out(100)) == {"b": sent["a"]}
    for number in sent["a"]:
        dispatch.answered("b", number)
    assert numbers(dispatch.hand_out(100)) == {"b": [6, 7, 8]}


def test_a_row_that_kills_every_replica_is_given_up_once_it_was_alone_at_two_deaths() -> None:
    killer, given_up, deaths = 7, [], 0
    dispatch = Dispatch(rows(40))
    answers: Counter[int] = Counter()
    while not dispatch.finished:
        name = f"replica-{deaths}"
        dispatch.join(name, 32)
        while sent := numbers(dispatch.hand_out(100)):
            if killer in sent[name]:
                given_up += dispatch.died(name)
                deaths += 1
                break
            for number in sent[name]:
                dispatch.answered(name, number)
                answers[number] += 1
    assert given_up == [killer]
    assert answers == Counter(set(range(40)) - {killer})
    assert deaths == 2 + DEATHS_OF_A_ROW  # with all others, with its group, and alone


@given(
    count=st.integers(0, 40),
    capacities=st.lists(st.integers(1, 3 * GROUP), min_size=1, max_size=4),
    window=st.none() | st.integers(1, 70),
    killers=st.sets(st.integers(0, 39), max_size=3),
    choices=st.randoms(use_true_random=False),
)
def test_every_row_is_answered_or_given_up_once(
    count: int,
    capacities: list[int],
    window: int | None,
    killers: set[int],
    choices: Random,
) -> None:
    dispatch = Dispatch(rows(count), window)
    ended: Counter[int] = Counter()
    given_up: set[int] = set()
    alone: Counter[int] = Counter()
    kills_left, started = 4, 0
    holding: dict[str, set[int]] = {}
    capacity: dict[str, int] = {}

    def die(name: str) -> None:
        held = holding.pop(name)
        if len(held) == 1:
            alone.update(held)
        failed = dispatch.died(name)
        given_up.update(failed)
        ended.update(failed)

    while not dispatch.finished:
        while len(holding) < len(capacities):
            name, size = f"replica-{started}", capacities[started % len(capacities)]
            dispatch.join(name, size)
            holding[name], capacity[name] = set(), size
            started += 1
        for name, sent in numbers(dispatch.hand_out(choices.randint(1, 100))).items():
            holding[name].update(sent)
            assert len(holding[name]) <= max(capacity[name], GROUP)
        if window is not None and any(holding.values()):
            held = set().union(*holding.values())
            assert max(held) - min(held) < window
        busy = [name for name in holding if holding[name]]
        if not busy:
            continue
        name = choices.choice(busy)
        if holding[name] & killers:
            die(name)
        elif kills_left and choices.getrandbits(1):
            kills_left -= 1
            die(name)
        else:
            number = choices.choice(sorted(holding[name]))
            holding[name].remove(number)
            dispatch.answered(name, number)
            ended[number] += 1
    assert ended == Counter(range(count))
    assert given_up >= {killer for killer in killers if killer < count}
    assert all(alone[number] >= DEATHS_OF_A_ROW for number in given_up)


def test_a_window_of_one_takes_one_row_after_the_other() -> None:
    dispatch = Dispatch(rows(3), window=1)
    dispatch.join("a", 8)
    for number in range(3):
        assert numbers(dispatch.hand_out(8)) == {"a": [number]}
        dispatch.answered("a", number)
    assert dispatch.hand_out(8) == {}
    assert dispatch.finished


@pytest.mark.parametrize("most", [1, 3])
def test_at_most_so_many_fresh_rows_are_taken_at_a_time(most: int) -> None:
    dispatch = Dispatch(rows(10))
    dispatch.join("a", 8)
    assert len(numbers(dispatch.hand_out(most))["a"]) == most
