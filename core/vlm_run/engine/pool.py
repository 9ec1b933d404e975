"""Rendering in processes of its own, since one process cannot feed a GPU with pictures.

vLLM renders on one thread: its image processor is not thread-safe, and more threads would meet
the interpreter's lock. Each worker here holds a vLLM renderer and hands back what the engine takes.
"""

from __future__ import annotations

import asyncio
import os
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from pebble import ProcessExpired, ProcessFuture, ProcessPool

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
        self._pool = ProcessPool(
            size,
            initializer=_prepare,
            initargs=(adapter, config, policy, self._folder.name),
            context=get_context("spawn"),
        )
        # Workers start with the first task; these let them load while the engine does.
        self._starting = [self._pool.schedule(_warm_up) for _ in range(size)]

    async def render(self, conversation: Conversation) -> Rendered:
        """The engine's input for a conversation.

        Raises:
            RequestError: The conversation, one of its images or its length is at fault, or two
                workers died of it.
        """
        try:
            return await self._render_once(conversation)
        except ProcessExpired:
            pass
        try:
            return await self._render_once(conversation)
        except ProcessExpired as error:
            raise RequestError(
                f"rendering the request ended its process twice ({error})",
                hint="The machine may be short of memory: use fewer renderers or smaller images.",
            ) from None

    def processes_started(self) -> bool:
        """Whether all workers have loaded."""
        return all(task.done() for task in self._starting)

    def shutdown(self) -> None:
        """End the workers; what they work at is dropped."""
        self._pool.stop()
        self._pool.join()
        self._folder.cleanup()

    async def _render_once(self, conversation: Conversation) -> Rendered:
        task: ProcessFuture = self._pool.schedule(_render, args=[conversation])
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

_given: tuple[Adapter, VllmConfig, MediaPolicy, str]
_loaded: tuple[Renderer, asyncio.AbstractEventLoop] | None = None


def _prepare(adapter: Adapter, config: VllmConfig, policy: MediaPolicy, folder: str) -> None:
    global _given
    _given = (adapter, config, policy, folder)


def _warm_up() -> None:
    _load()


def _load() -> tuple[Renderer, asyncio.AbstractEventLoop]:
    """The worker's renderer; an error in loading it belongs to the request, not to the process."""
    global _loaded
    if _loaded is None:
        import torch
        from vllm.plugins import load_general_plugins
        from vllm.renderers import renderer_from_config

        torch.set_num_threads(1)  # the processes share the cores
        load_general_plugins()
        adapter, config, policy, _ = _given
        _loaded = (
            Renderer(adapter, renderer_from_config(config), policy, name_images=True),
            asyncio.new_event_loop(),
        )
    return _loaded


def _render(conversation: Conversation) -> Stored:
    renderer, loop = _load()
    rendered = loop.run_until_complete(renderer.render(conversation))
    try:
        return store(rendered, _given[3])
    except OSError as error:
        raise RequestError(
            f"there is no room to hand on the rendered request ({error})",
            hint="Give the container more shared memory, or use no renderer processes.",
        ) from None
