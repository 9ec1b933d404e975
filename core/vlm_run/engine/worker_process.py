"""A process that runs functions one after the other, and says which of them it died of."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class ProcessDied(Exception):
    """The process died while it ran the task."""


class TaskDropped(Exception):
    """The process died, or could not start, before it reached the task."""


class WorkerProcess:
    """One process of an executor. It ends with the process that started it, and ignores Ctrl-C.

    Args:
        context: How the process is started.
        initializer: Called once in the process, before its first task.
        initargs: Its arguments.
        warm_up: The first task. If the process dies of it, it dies of all tasks that follow.
    """

    def __init__(
        self,
        context: BaseContext,
        initializer: Callable[..., None],
        initargs: Sequence[Any],
        warm_up: Callable[[], None],
    ) -> None:
        self._executor = ProcessPoolExecutor(1, context, _begin, (initializer, initargs))
        self._died_of: Future[Any] | None = None
        self._warm_up = self.submit(warm_up)

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a function in the process once it has run those before.

        Raises:
            TaskDropped: The process has died.
        """
        try:
            task = self._executor.submit(function, *args, **kwargs)
        except BrokenProcessPool:
            raise TaskDropped from None
        task.add_done_callback(self._note_death)
        return task

    async def result(self, task: Future[T]) -> T:
        """What a task returns. If the caller is cancelled, so is a task that has not begun.

        Raises:
            ProcessDied: The process died of it.
            TaskDropped: It died of another one.
        """
        try:
            return await asyncio.shield(asyncio.wrap_future(task))
        except asyncio.CancelledError:
            task.cancel()
            raise
        except BrokenProcessPool as error:
            if self._died_of in (task, self._warm_up):
                raise ProcessDied(str(error)) from None
            raise TaskDropped from None

    def kill(self) -> None:
        """End the process at once. What it works at and what waits for it fail as if it had died."""
        # ProcessPoolExecutor.kill_workers() does the same from Python 3.14 on.
        for process in [*(self._executor._processes or {}).values()]:
            process.kill()
        self._executor.shutdown(wait=True)

    def _note_death(self, task: Future[Any]) -> None:
        # A process works at the oldest of its tasks, and those of a broken executor fail in their order.
        if self._died_of is None and not task.cancelled() and isinstance(task.exception(), BrokenProcessPool):
            self._died_of = task


def _begin(initializer: Callable[..., None], initargs: Sequence[Any]) -> None:
    # Ctrl-C reaches all processes of a terminal; the one that started this one decides what ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    initializer(*initargs)


def _end_with_parent() -> None:
    # Not by prctl, as vLLM's processes do: to Linux, the parent may be multiprocessing's fork server.
    parent = multiprocessing.parent_process()
    assert parent is not None, "the process was not started by multiprocessing"
    parent.join()
    os._exit(1)
