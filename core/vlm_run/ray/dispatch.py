"""Which replica answers which row, and what happens to the rows of a replica that dies.

This module does not use Ray: the pool reports what replicas do, and asks what to send to them.

A replica that dies leaves rows unanswered, and any of them may have killed it. They are retried on a
replica that has nothing else to do, in small groups; the rows of a group that dies, too, are retried one
by one. A row is blamed, and fails, only after two replicas died while it was the only row they had:
a node that is taken away costs no row.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import inf

from vlm_run.request import Request

GROUP = 16
"""Rows of a dead replica that are retried together."""
DEATHS_OF_A_ROW = 2
"""Replicas that die while they answer one row and no other, before it is given up."""


@dataclass(slots=True)
class _Replica:
    capacity: int
    in_flight: set[int] = field(default_factory=set)
    retries: bool = False
    """Whether what is in flight are rows that a dead replica left."""


class Dispatch:
    """Assigns rows to replicas.

    Args:
        rows: Taken as replicas have room for them.
        window: Most rows taken beyond the oldest that is not answered.
    """

    def __init__(self, rows: Iterable[Request], window: int | None = None) -> None:
        self._rows = enumerate(rows)
        self._window = window or inf
        self._exhausted = False
        self._taken = 0
        self._open: dict[int, Request] = {}  # in their order, the oldest first
        self._replicas: dict[str, _Replica] = {}
        self._left_behind: deque[tuple[int, ...]] = deque()
        self._deaths_alone: Counter[int] = Counter()

    @property
    def finished(self) -> bool:
        """Whether every row is answered or given up."""
        return self._exhausted and not self._open

    @property
    def has_room(self) -> bool:
        """Whether a fresh row could be taken and sent now."""
        return not self._exhausted and self._span() < self._window and self._receiver() is not None

    def in_flight(self, name: str) -> int:
        """The number of rows that a replica has."""
        return len(self._replicas[name].in_flight)

    def join(self, name: str, capacity: int) -> None:
        """Add a replica that answers up to `capacity` rows at a time."""
        self._replicas[name] = _Replica(capacity)

    def hand_out(self, most: int) -> dict[str, list[tuple[int, Request]]]:
        """Choose rows for each replica: first those of dead replicas, then up to `most` fresh ones."""
        sent: dict[str, list[tuple[int, Request]]] = {}
        for name, replica in self._replicas.items():
            if self._left_behind and not replica.in_flight:
                group = self._left_behind.popleft()
                replica.in_flight.update(group)
                replica.retries = True
                sent[name] = [(number, self._open[number]) for number in group]
        for _ in range(most):
            if self._span() >= self._window or (receiver := self._receiver()) is None:
                break
            try:
                number, request = next(self._rows)
            except StopIteration:
                self._exhausted = True
                break
            self._taken = number + 1
            self._open[number] = request
            self._replicas[receiver].in_flight.add(number)
            sent.setdefault(receiver, []).append((number, request))
        return sent

    def answered(self, name: str, number: int) -> None:
        """A replica has answered a row."""
        replica = self._replicas[name]
        replica.in_flight.remove(number)
        replica.retries = replica.retries and bool(replica.in_flight)
        del self._open[number]

    def died(self, name: str) -> list[int]:
        """A replica is gone, and its rows go to others; those that are given up instead."""
        replica = self._replicas.pop(name)
        numbers = sorted(replica.in_flight)
        if len(numbers) == 1:
            (number,) = numbers
            self._deaths_alone[number] += 1
            if self._deaths_alone[number] >= DEATHS_OF_A_ROW:
                del self._open[number]
                return [number]
        size = 1 if replica.retries else GROUP
        self._left_behind.extend(_groups(numbers, size))
        return []

    def _span(self) -> int:
        """The number of rows from the oldest without an answer to the newest, both included."""
        return self._taken - next(iter(self._open)) if self._open else 0

    def _receiver(self) -> str | None:
        """The replica with the most room for fresh rows; None if there is no room."""
        candidates = {name: each for name, each in self._replicas.items() if not each.retries}
        if self._left_behind and candidates:
            # Rows of a dead replica wait for one that has nothing else to do: the one that is nearest to it.
            del candidates[min(candidates, key=lambda name: len(candidates[name].in_flight))]
        room = {name: each.capacity - len(each.in_flight) for name, each in candidates.items()}
        widest = max(room, key=lambda name: room[name], default=None)
        return widest if widest is not None and room[widest] > 0 else None


def _groups(numbers: list[int], size: int) -> Iterator[tuple[int, ...]]:
    for start in range(0, len(numbers), size):
        yield tuple(numbers[start : start + size])
