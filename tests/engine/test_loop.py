"""A loop in a thread of its own, for plain callers and for callers with a loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from vlm_run.engine.loop import LoopThread


@pytest.fixture
def thread() -> Iterator[LoopThread]:
    running = LoopThread("test")
    yield running
    running.stop()


async def numbers(closed: list[bool]) -> AsyncIterator[int]:
    try:
        for number in range(3):
            await asyncio.sleep(0)
            yield number
    finally:
        closed.append(True)


async def fail() -> None:
    raise LookupError("as it should")


def test_runs_coroutines_for_plain_callers(thread: LoopThread) -> None:
    assert thread.run(asyncio.sleep(0, "slept")) == "slept"
    with pytest.raises(LookupError, match="as it should"):
        thread.run(fail())


def test_iterates_for_plain_callers_and_closes_what_is_left_early(thread: LoopThread) -> None:
    closed: list[bool] = []
    assert list(thread.iterate(numbers(closed))) == [0, 1, 2]
    for _ in thread.iterate(numbers(closed)):
        break
    assert closed == [True, True]


def test_serves_callers_with_a_loop_of_their_own(thread: LoopThread) -> None:
    async def call() -> tuple[str, list[int]]:
        return await thread.run_async(asyncio.sleep(0, "slept")), [
            number async for number in thread.iterate_async(numbers([]))
        ]

    assert asyncio.run(call()) == ("slept", [0, 1, 2])


def test_stopping_cancels_what_runs_and_may_be_done_twice() -> None:
    thread = LoopThread("test")
    waiting = asyncio.run_coroutine_threadsafe(asyncio.sleep(60), thread._loop)
    thread.stop()
    thread.stop()
    assert waiting.cancelled()
