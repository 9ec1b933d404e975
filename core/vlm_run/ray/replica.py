"""The actor that answers rows with an engine of its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from vlm_run.errors import EngineError, PluginError
from vlm_run.media import MediaPolicy
from vlm_run.ray.cluster import installed, share_cores, version_differences
from vlm_run.request import Request, Sampling
from vlm_run.response import Response

if TYPE_CHECKING:
    from vlm_run.adapter import Adapter


class Answerer(Protocol):
    """Answers the requests of a replica.

    Attributes:
        capacity: Requests that it takes at a time.
    """

    capacity: int

    async def answer(self, request: Request, sampling: Sampling) -> Response:
        """The response to one request, in which `error` is set if the request is at fault.

        Raises:
            EngineError: No request can be answered any more.
        """

    def shutdown(self) -> None:
        """End what was started."""


class Recipe(Protocol):
    """How a replica starts; pickled, and called in the replica's process."""

    def __call__(self) -> Answerer: ...


@dataclass(frozen=True, slots=True)
class EngineRecipe:
    """Starts an engine.

    Attributes:
        adapter: The model.
        policy: What images may be fetched, and how large they may be.
        options: Engine options, in addition to the plugin's.
        renderers: Processes that prepare images; None for a share of the node's cores.
        share: The part of a node that one replica has, from 0 to 1.
        versions: Those of the driver, which the replica's node must have too.
    """

    adapter: Adapter
    policy: MediaPolicy
    options: Mapping[str, Any] = field(default_factory=dict)
    renderers: int | None = None
    share: float = 1.0
    versions: Mapping[str, str] = field(default_factory=dict)

    def __call__(self) -> Answerer:
        if differences := version_differences(self.versions, installed()):
            raise EngineError(
                f"this node's packages differ from the driver's: {differences}",
                hint="Install the same versions on all nodes.",
            )
        share_cores(self.share)
        return _EngineAnswerer(self)


class _EngineAnswerer:
    def __init__(self, recipe: EngineRecipe) -> None:
        from vlm_run.engine.image_fetcher import Fetcher
        from vlm_run.engine.renderer_pool import default_pool_size

        renderers = recipe.renderers
        if renderers is None:
            renderers = int(default_pool_size() * recipe.share)
        self._engine = recipe.adapter.engine(policy=recipe.policy, renderers=renderers, **recipe.options)
        self.capacity = self._engine.capacity
        self._fetcher = Fetcher(recipe.policy)

    async def answer(self, request: Request, sampling: Sampling) -> Response:
        return await self._engine.answer(request, sampling, fetcher=self._fetcher)

    def shutdown(self) -> None:
        self._engine.shutdown()


# Answers are handed out together for so long, or until they are so much of what is in flight: a call costs a
# few milliseconds of CPU time, and the engine has more rows waiting than it answers meanwhile.
_LINGER_S = 0.05
_PART_OF_CAPACITY = 8

Answer = tuple[int, int, Response]
"""The number of the run, that of the row, and the response."""


class Replica:
    """Takes rows and hands out responses; a Ray actor.

    Rows and responses travel in lists, since a call of an actor costs about as much as a small row.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._answerer: Answerer | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._answers: list[Answer] = []
        self._answered = asyncio.Event()
        self._enough = asyncio.Event()

    async def start(self) -> int:
        """Start the answerer, and return its capacity.

        Raises:
            VlmRunError: It could not start.
        """
        self._answerer = await asyncio.to_thread(self._recipe)
        return self._answerer.capacity

    async def put(self, run: int, rows: Sequence[tuple[int, Request]], sampling: Sampling) -> None:
        """Begin to answer rows."""
        for number, request in rows:
            task = asyncio.create_task(self._answer(run, number, request, sampling))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def take(self) -> list[Answer]:
        """The finished responses, at least one; waits for the first, and a moment for more."""
        await self._answered.wait()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._enough.wait(), _LINGER_S)
        self._answered.clear()
        self._enough.clear()
        answers, self._answers = self._answers, []
        return answers

    async def drop(self) -> None:
        """Discard the rows that are not answered yet."""
        for task in self._tasks:
            task.cancel()

    async def stop(self) -> None:
        """End the engine and its processes."""
        await self.drop()
        if self._answerer is not None:
            await asyncio.to_thread(self._answerer.shutdown)

    def process_id(self) -> int:
        """The process id of this replica on its node."""
        return os.getpid()

    async def _answer(self, run: int, number: int, request: Request, sampling: Sampling) -> None:
        assert self._answerer is not None
        try:
            response = await self._answerer.answer(request, sampling)
        except EngineError:
            # Only the end of the process makes Ray, and with it the driver, give up on this replica.
            os._exit(1)
        except Exception as error:  # a mistake of vlm-run's or a plugin's costs its own row only
            failed = PluginError(f"answering failed with {type(error).__name__}: {error}")
            response = Response(finish_reason="error", error=failed)
        self._answers.append((run, number, response))
        self._answered.set()
        if len(self._answers) >= self._answerer.capacity // _PART_OF_CAPACITY:
            self._enough.set()
