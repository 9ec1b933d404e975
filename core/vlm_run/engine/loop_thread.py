"""An event loop in a thread of its own.

vLLM's asynchronous engine must stay on one loop for its whole life. With that loop in a thread,
the engine serves plain functions and any caller's event loop alike.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import signal
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future, wait
from functools import partial
from math import inf
from multiprocessing import resource_tracker
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

_END: Any = object()


class LoopThread:
    """Runs coroutines for callers outside its thread.

    The thread stops when it is told to, when nothing refers to this object any more, or with the interpreter.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        # Neither the thread nor what ends it refers to this object, or it would never be collected.
        thread = threading.Thread(target=_run, args=(self._loop,), name=name, daemon=True)
        thread.start()
        self._at_stop: list[Callable[[], None]] = []
        self._stop = weakref.finalize(self, _stop, os.getpid(), self._loop, thread, self._at_stop)

    @property
    def running(self) -> bool:
        """Whether coroutines can still be run."""
        return self._stop.alive

    def at_stop(self, function: Callable[[], None]) -> None:
        """Call a function on the loop before the thread stops. It must not refer to this object."""
        self._at_stop.append(function)
        # What was registered last is called first: before vLLM and multiprocessing end vLLM's processes.
        atexit.register(self._stop)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result; an interrupt (Ctrl-C) cancels it."""
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()
        except BaseException:
            # An interrupt may come before the future is at hand, so the task is found by its coroutine.
            if self.running:
                self._loop.call_soon_threadsafe(_cancel_task_of, coroutine)
            raise

    async def run_async(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result, awaited on the caller's loop; cancelling that cancels it."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._loop))

    def as_completed(
        self, coroutines: Iterable[Coroutine[Any, Any, T]], at_once: int, window: int | None = None
    ) -> Iterator[tuple[int, T]]:
        """Results with the number of their coroutine, as they come; leaving the loop early cancels the rest.

        Args:
            coroutines: Taken as those before them finish.
            at_once: Most coroutines that run at a time.
            window: Most coroutines taken beyond the oldest that still runs.
        """
        finished: SimpleQueue[tuple[int, Future[T]]] = SimpleQueue()
        running: dict[int, Future[T]] = {}
        try:
            for number, coroutine in enumerate(coroutines):
                future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
                running[number] = future
                future.add_done_callback(partial(_report, finished, number))
                # Finished results are handed out first, however slowly coroutines arrive.
                while not finished.empty() or len(running) >= at_once or _span(running) >= (window or inf):
                    yield _take(finished, running)
            while running:
                yield _take(finished, running)
        finally:
            for future in list(running.values()):
                future.cancel()

    def iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        """The items of an asynchronous generator; leaving the loop early closes it."""
        turns = _SerializedGenerator(items)
        try:
            while (item := self.run(turns.next())) is not _END:
                yield item
        finally:
            if self.running:
                self.run(turns.close())

    async def iterate_async(self, items: AsyncIterator[T]) -> AsyncIterator[T]:
        """As `iterate`, on the caller's loop."""
        turns = _SerializedGenerator(items)
        try:
            while (item := await self.run_async(turns.next())) is not _END:
                yield item
        finally:
            if self.running:
                await self.run_async(turns.close())

    def stop(self) -> None:
        """Cancel what runs and end the thread. Safe to call twice, and without effect in a fork."""
        self._stop()


async def all_or_none(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all, in their order; the first error ends the others and is raised."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    except Exception:
        for task in tasks:
            task.cancel()
        raise


def _report(finished: SimpleQueue[tuple[int, Future[T]]], number: int, future: Future[T]) -> None:
    finished.put((number, future))


def _take(finished: SimpleQueue[tuple[int, Future[T]]], running: dict[int, Future[T]]) -> tuple[int, T]:
    number, future = finished.get()
    del running[number]
    return number, future.result()


def _span(running: dict[int, Future[T]]) -> int:
    """The number of coroutines from the oldest that runs to the newest, both included."""
    return next(reversed(running)) - next(iter(running)) + 1 if running else 0


class _SerializedGenerator:
    """An asynchronous generator of which one thing is asked at a time.

    A caller who is interrupted has left while the item it waited for is still being cancelled, and
    a generator that runs refuses to be closed.
    """

    def __init__(self, items: AsyncIterator[Any]) -> None:
        self._items = items
        self._turn = asyncio.Lock()

    async def next(self) -> Any:
        """The next item, or `_END`."""
        async with self._turn:
            return await anext(self._items, _END)

    async def close(self) -> None:
        """Close the generator, once it does nothing else."""
        close = getattr(self._items, "aclose", None)
        async with self._turn:
            if close is not None:
                await close()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    # A terminal sends Ctrl-C to all processes of a command, and vLLM's would end at it. What is
    # started from this thread inherits that it is blocked; whether to stop is the caller's say.
    # Python's resource tracker comes first, since starting it unblocks.
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    loop.run_forever()
    loop.close()


def _stop(
    process_id: int,
    loop: asyncio.AbstractEventLoop,
    thread: threading.Thread,
    at_stop: list[Callable[[], None]],
) -> None:
    if os.getpid() != process_id:  # a fork has a copy of everything but the thread
        return
    ended = asyncio.run_coroutine_threadsafe(_end_all(at_stop), loop)
    ended.add_done_callback(lambda _: loop.call_soon_threadsafe(loop.stop))
    if threading.current_thread() is thread:  # where garbage was collected
        return
    try:
        ended.result()
    finally:
        wait([ended])  # also after an interrupt; a second one ends the wait
        thread.join(timeout=10)


async def _end_all(at_stop: list[Callable[[], None]]) -> None:
    for function in at_stop:
        function()
    await _cancel_others()


def _cancel_task_of(coroutine: Coroutine[Any, Any, Any]) -> None:
    for task in asyncio.all_tasks():
        if task.get_coro() is coroutine:
            task.cancel()


async def _cancel_others() -> None:
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
