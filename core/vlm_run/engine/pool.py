"""Rendering in processes of its own, since one process cannot feed a GPU with pictures.

vLLM renders on one thread: its image processor is not thread-safe, and more threads would meet
the interpreter's lock. Each worker here holds a vLLM renderer and hands back what the engine takes.
"""

from __future__ import annotations

import asyncio
import os
import pickle
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from pebble import ProcessExpired, ProcessPool

from vlm_run.engine.rendering import Rendered, Renderer
from vlm_run.engine.shared_memory import Stored, discard, memory_folder, store, take
from vlm_run.errors import RequestError
from vlm_run.media import MediaPolicy

if TYPE_CHECKING:
    from vllm.config import VllmConfig

    from vlm_run.adapter import Adapter
    from vlm_run.conversation import Conversation

# For the engine's core, vLLM's front end, the caller and the operating system.
_CORES_FOR_OTHERS = 4
# What keeps one H200 busy with the smallest models.
_MOST_WORKERS = 12
# The first of one worker, the second of so many that pebble gives the pool up.
_DEATHS = (ProcessExpired, BrokenProcessPool)


def default_pool_size() -> int:
    """Worker processes for this machine's cores; 0, rendering in the caller's process, if it has few."""
    return max(0, min(_MOST_WORKERS, len(os.sched_getaffinity(0)) - _CORES_FOR_OTHERS))


class RendererPool:
    """Processes that render conversations for one model, as `Renderer` does.

    A worker that dies is replaced; its request is tried once more, then fails alone.

    Args:
        adapter: The model; its plugin must be an installed one, since workers find it by name.
        config: Of the engine that the requests are for. Its processor cache must be off: the
            workers name each picture by its content.
        policy: What images may be fetched, and how large they may be.
        size: Of the pool, at least 1.
    """

    def __init__(self, adapter: Adapter, config: VllmConfig, policy: MediaPolicy, size: int) -> None:
        self._folder = memory_folder()
        self._size = size
        self._given = (adapter, config, policy, self._folder.name)
        self._pool = self._start()

    async def render(self, conversation: Conversation) -> Rendered:
        """The engine's input for a conversation.

        Raises:
            RequestError: The conversation, one of its images or its length is at fault, or two
                workers died of it.
        """
        # Unpickled only once a worker has taken the task, so that it alone can die of the content.
        pickled = pickle.dumps(conversation)
        with suppress(*_DEATHS):
            return await self._render_once(pickled)
        try:
            return await self._render_once(pickled)
        except _DEATHS as error:
            raise RequestError(
                f"rendering the request ended its process twice ({error})",
                hint="The machine may be short of memory: use fewer renderers or smaller images.",
            ) from None

    @property
    def folder(self) -> str:
        """Where rendered requests wait for this process to take them."""
        return self._folder.name

    def shutdown(self) -> None:
        """End the workers; what they work at is dropped."""
        self._end()
        self._folder.cleanup()

    def _start(self) -> ProcessPool:
        pool = ProcessPool(
            self._size, initializer=_prepare, initargs=self._given, context=get_context("spawn")
        )
        # Workers start with the first task; these let them load while the engine does.
        for _ in range(self._size):
            pool.schedule(_warm_up)
        return pool

    def _end(self) -> None:
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()

    async def _render_once(self, pickled: bytes) -> Rendered:
        try:
            task = self._pool.schedule(_render, args=[pickled])
        except RuntimeError:  # broken, as pebble's is after the death of a worker that had nothing to do
            self._end()
            self._pool = self._start()
            task = self._pool.schedule(_render, args=[pickled])
        try:
            # Shielded: cancelling pebble's future would end a worker, which is dear to start.
            stored: Stored = await asyncio.shield(asyncio.wrap_future(task))
        except asyncio.CancelledError:
            task.add_done_callback(_discard_result)
            raise
        rendered: Rendered = take(stored)
        return rendered


def _discard_result(task: Any) -> None:
    if not task.cancelled() and task.exception() is None:
        discard(task.result())


# Below, what runs in a worker.


@dataclass
class _Worker:
    """What a worker was given; the renderer comes with its first task."""

    adapter: Adapter
    config: VllmConfig
    policy: MediaPolicy
    folder: str

    @cached_property
    def loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.new_event_loop()

    @cached_property
    def renderer(self) -> Renderer:
        # Not in the initializer: an error there would end worker after worker.
        import torch
        from vllm.plugins import load_general_plugins
        from vllm.renderers import renderer_from_config

        torch.set_num_threads(1)  # the processes share the cores
        load_general_plugins()
        return Renderer(self.adapter, renderer_from_config(self.config), self.policy, name_images=True)


_workers: list[_Worker] = []


def _prepare(*given: Any) -> None:
    _workers[:] = [_Worker(*given)]


def _warm_up() -> None:
    assert _workers[0].renderer


def _render(pickled: bytes) -> Stored:
    (worker,) = _workers
    conversation: Conversation = pickle.loads(pickled)
    rendered = worker.loop.run_until_complete(worker.renderer.render(conversation))
    try:
        return store(rendered, worker.folder)
    except OSError as error:
        raise RequestError(
            f"there is no room to hand on the rendered request ({error})",
            hint="Give the container more shared memory, or use no renderer processes.",
        ) from None
