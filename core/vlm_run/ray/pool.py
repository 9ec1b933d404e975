"""Engines as Ray actors behind the method of one engine that a batch uses."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import ray

from vlm_run.errors import EngineError, RequestError, VlmRunError
from vlm_run.ray.cluster import Share
from vlm_run.ray.dispatch import DEATHS_OF_A_ROW, Dispatch
from vlm_run.ray.replica import Answer, Recipe, Replica
from vlm_run.request import Request, Sampling
from vlm_run.response import Response

# Fresh rows read before what is answered meanwhile is handed on.
_ROWS_AT_A_TIME = 32
_FAILED_STARTS = 3
_STOP_SECONDS = 20.0


@dataclass(slots=True)
class _Running:
    """A replica that answers."""

    actor: Any
    capacity: int
    take: Any
    since: float
    answered: int = 0


class Replicas:
    """Several engines that answer one batch; a replica that dies is replaced, and loses no row.

    Args:
        recipe: Starts the engine of each, in its process.
        count: Their number.
        share: What each takes of its node.

    Attributes:
        deaths: Replicas that died.
    """

    def __init__(self, recipe: Recipe, count: int, share: Share | None = None) -> None:
        self._recipe = ray.put(recipe)
        self._actor = ray.remote(Replica).options(**(share or Share()).options())
        self._running: dict[str, _Running] = {}
        self._starting: dict[Any, tuple[str, Any]] = {}
        self._started = 0
        self._failed_starts = 0
        self._runs = 0
        self.deaths = 0
        self.count = count
        for _ in range(count):
            self._start()

    def wait(self, count: int = 1) -> None:
        """Wait until this many replicas are ready; a batch begins with the first.

        Raises:
            EngineError: They could not start.
        """
        while len(self._running) < count:
            for _ in self._next_event(None, None):
                pass

    def as_completed(
        self, requests: Iterable[Request], sampling: Sampling | None = None, *, window: int | None = None
    ) -> Iterator[tuple[int, Response]]:
        """Responses as they finish, each with the number of its request, from 0 on.

        A request that cannot be served, or that two replicas died of, has `error` set in its
        response and harms no other. Leaving the loop early stops the answers under way.

        Args:
            requests: Taken as replicas have room for them.
            sampling: For requests without sampling parameters.
            window: Most requests taken beyond the oldest that is not answered.

        Raises:
            EngineError: No replica could be started any more.
        """
        self._runs += 1
        run, sampling = self._runs, sampling or Sampling()
        dispatch = Dispatch(requests, window)
        for name, replica in self._running.items():
            dispatch.join(name, replica.capacity)
        try:
            while True:
                for name, rows in dispatch.hand_out(_ROWS_AT_A_TIME).items():
                    self._running[name].actor.put.remote(run, rows, sampling)
                if dispatch.finished:
                    return
                # With room left, rows are read on as soon as what is answered is handed out.
                for answered in self._next_event(dispatch, 0 if dispatch.has_room else None):
                    if answered[0] == run:
                        yield answered[1:]
        finally:
            if not dispatch.finished:
                for replica in self._running.values():
                    replica.actor.drop.remote()

    def process_ids(self) -> list[int]:
        """The process ids of the replicas that answer now, each on its node."""
        found = []
        for replica in list(self._running.values()):
            with suppress(ray.exceptions.RayError):
                found.append(ray.get(replica.actor.process_id.remote()))
        return found

    def status(self) -> str:
        """The replicas and how fast each is, in one line."""
        now = time.monotonic()
        rates = " ".join(
            f"{each.answered / max(now - each.since, 1e-9):.1f}" for each in self._running.values()
        )
        died = f", {self.deaths} died" if self.deaths else ""
        return f"{len(self._running)} of {self.count} replicas ({rates or 'starting'} rows/s){died}"

    def shutdown(self) -> None:
        """End all replicas. Safe to call twice."""
        stopping = {replica.actor.stop.remote(): replica.actor for replica in self._running.values()}
        actors = [*stopping.values(), *(actor for _, actor in self._starting.values())]
        self._running, self._starting = {}, {}
        if stopping:
            ray.wait(list(stopping), num_returns=len(stopping), timeout=_STOP_SECONDS)
        for actor in actors:
            ray.kill(actor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()

    def _start(self) -> None:
        self._started += 1
        actor = self._actor.remote(self._recipe)
        self._starting[actor.start.remote()] = (f"replica-{self._started}", actor)

    def _next_event(self, dispatch: Dispatch | None, timeout: float | None) -> Iterator[Answer]:
        """Wait for a replica to start, to answer or to die, and act on it."""
        taking = {replica.take: name for name, replica in self._running.items()}
        ready, _ = ray.wait([*self._starting, *taking], timeout=timeout)
        if not ready:
            return
        (ref,) = ready
        if ref in self._starting:
            self._finish_start(ref, dispatch)
            return
        name = taking[ref]
        replica = self._running[name]
        try:
            answers: list[Answer] = ray.get(ref)
        except ray.exceptions.RayTaskError:
            raise
        except ray.exceptions.RayError:
            yield from self._bury(name, dispatch)
            return
        replica.take = replica.actor.take.remote()
        replica.answered += len(answers)
        # Behind the others, since the first that is ready is looked at first.
        self._running[name] = self._running.pop(name)
        for run, number, response in answers:
            if dispatch is not None and run == self._runs:
                dispatch.answered(name, number)
            yield run, number, response

    def _finish_start(self, ref: Any, dispatch: Dispatch | None) -> None:
        name, actor = self._starting.pop(ref)
        try:
            capacity = ray.get(ref)
        except ray.exceptions.RayError as error:
            ray.kill(actor)
            self._give_up_start(error)
            return
        self._failed_starts = 0
        self._running[name] = _Running(actor, capacity, actor.take.remote(), time.monotonic())
        if dispatch is not None:
            dispatch.join(name, capacity)

    def _give_up_start(self, error: ray.exceptions.RayError) -> None:
        """Start another replica, unless it would fail likewise or too many have failed."""
        self._failed_starts += 1
        cause = getattr(error, "cause", None)
        if isinstance(cause, VlmRunError) and not self._running:
            raise cause
        if self._failed_starts < _FAILED_STARTS:
            self._start()
        elif not self._running and not self._starting:
            reason = " ".join(str(error).split())
            raise EngineError(f"{_FAILED_STARTS} replicas died while they started; the last: {reason}")

    def _bury(self, name: str, dispatch: Dispatch | None) -> Iterator[Answer]:
        """Replace a replica that is gone, and fail the rows that killed it."""
        replica = self._running.pop(name)
        ray.kill(replica.actor)  # one that cannot be reached may still run
        self.deaths += 1
        self._start()
        for number in dispatch.died(name) if dispatch is not None else ():
            error = RequestError(
                f"{DEATHS_OF_A_ROW} replicas died while they answered this request and no other",
                hint="See their logs on their nodes.",
            )
            yield self._runs, number, Response(finish_reason="error", error=error)
