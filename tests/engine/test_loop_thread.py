"""A loop in a thread of its own, for plain callers and for callers with a loop."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from vlm_run.engine.loop_thread import LoopThread, all_or_none


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


async def slow_to_leave(closed: list[bool], *, interrupts: bool = False) -> AsyncIterator[int]:
    """One number, then none for long; what it does when it is cancelled takes its time too."""
    yield 0
    try:
        if interrupts:
            os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(60)
        yield 1
    finally:
        await asyncio.sleep(0.05)
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


def test_an_interrupt_while_an_item_is_awaited_ends_the_generator_and_nothing_else(
    thread: LoopThread,
) -> None:
    closed: list[bool] = []
    with pytest.raises(KeyboardInterrupt):
        list(thread.iterate(slow_to_leave(closed, interrupts=True)))
    assert closed == [True]
    assert thread.run(asyncio.sleep(0, "still here")) == "still here"


def test_an_interrupt_between_asking_and_waiting_ends_the_generator_too(
    thread: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule, scheduled = asyncio.run_coroutine_threadsafe, []

    def interrupted(coroutine: Any, loop: asyncio.AbstractEventLoop) -> Any:
        scheduled.append(schedule(coroutine, loop))
        if len(scheduled) == 2:  # the caller who waits for the second item, which never comes
            raise KeyboardInterrupt
        return scheduled[-1]

    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", interrupted)
    closed: list[bool] = []
    with pytest.raises(KeyboardInterrupt):
        list(thread.iterate(slow_to_leave(closed)))
    assert closed in ([True], [])  # without its second step there is nothing to leave
    assert thread.run(asyncio.sleep(0, "still here")) == "still here"


def test_a_caller_who_is_cancelled_while_an_item_is_awaited_ends_the_generator(thread: LoopThread) -> None:
    closed: list[bool] = []

    async def call() -> None:
        async for _ in thread.iterate_async(slow_to_leave(closed)):
            pass

    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(call(), timeout=0.2))
    assert closed == [True]


def test_serves_callers_with_a_loop_of_their_own(thread: LoopThread) -> None:
    async def call() -> tuple[str, list[int]]:
        return await thread.run_async(asyncio.sleep(0, "slept")), [
            number async for number in thread.iterate_async(numbers([]))
        ]

    assert asyncio.run(call()) == ("slept", [0, 1, 2])


def test_the_first_error_of_several_ends_the_others(thread: LoopThread) -> None:
    ended: list[bool] = []

    async def wait() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    with pytest.raises(LookupError, match="as it should"):
        thread.run(all_or_none([wait(), fail()]))
    thread.run(asyncio.sleep(0))
    assert ended == [True]
    assert thread.run(all_or_none(asyncio.sleep(0, number) for number in range(3))) == [0, 1, 2]


def test_stopping_cancels_what_runs_and_may_be_done_twice() -> None:
    thread = LoopThread("test")
    waiting = asyncio.run_coroutine_threadsafe(asyncio.sleep(60), thread._loop)
    thread.stop()
    thread.stop()
    assert waiting.cancelled()


def test_it_stops_when_nothing_refers_to_it_any_more() -> None:
    stopped = threading.Event()
    thread = LoopThread("test")
    thread.at_stop(stopped.set)
    items = thread.iterate(numbers([]))
    assert next(items) == 0
    del thread
    gc.collect()
    assert list(items) == [1, 2]  # who iterates refers to it
    del items
    gc.collect()
    assert stopped.wait(timeout=60)


def test_it_stops_when_garbage_is_collected_on_the_thread_itself() -> None:
    stopped = threading.Event()
    thread: Any = LoopThread("test")
    thread.at_stop(stopped.set)
    thread.itself, loop = thread, thread._loop
    del thread
    loop.call_soon_threadsafe(gc.collect)
    assert stopped.wait(timeout=60)


ENDS_IN_THE_MIDDLE = """
import asyncio, multiprocessing, os, tempfile, time
directory = tempfile.TemporaryDirectory()  # so that weakref's own exit comes late
from vlm_run.engine.loop_thread import LoopThread

async def numbers():
    while True:
        yield 0
        await asyncio.sleep(0)

process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,), daemon=True)
process.start()
thread = LoopThread("test")
thread.at_stop(lambda: print("stopped; the process is", "alive" if process.is_alive() else "dead"))
left_open = thread.iterate(numbers())
next(left_open)
if os.fork() == 0:
    thread.stop()
    os._exit(0)
os.wait()
raise SystemExit("the script")
"""


def test_it_stops_with_the_interpreter_and_before_other_processes_but_not_with_a_fork() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ENDS_IN_THE_MIDDLE], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("stopped; the process is alive\n", "the script\n")
