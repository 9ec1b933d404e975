"""A pool of processes that render requests, since one process cannot keep a GPU busy with images.

vLLM renders on one thread: its image processor is not thread-safe, and more threads would wait for the
interpreter's lock. Each worker here has a vLLM renderer and returns the engine's input.
"""

from __future__ import annotations

import asyncio
import os
import pickle
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from vlm_run.engine.renderer import Rendered, Renderer
from vlm_run.engine.shared_memory import SharedMemoryDirectory, Stored, store, take
from vlm_run.engine.worker_process import ProcessDied, TaskDropped, WorkerProcess
from vlm_run.errors import EngineError, RequestError, as_request_error
from vlm_run.media import MediaPolicy
from vlm_run.media.decode import load_opened_image
from vlm_run.media.load import locating_errors
from vlm_run.media.source import Pages, VideoSource

if TYPE_CHECKING:
    from vllm.config import VllmConfig

    from vlm_run.adapter import Adapter
    from vlm_run.media.source import ImageSource
    from vlm_run.prompts.conversation import Conversation

# For the engine's core, vLLM's front end, the caller and the operating system.
_CORES_FOR_OTHERS = 4
# Enough to keep one H200 busy with the smallest models.
_MAX_WORKERS = 12
# More do not make one image faster (Qwen2-VL, 672 × 672: 7.0 ms with 1, 6.7 with 4, 5.4 with 16).
_MAX_THREADS = 16
_IMPORTED_ONCE = ["vllm.renderers", "vllm.plugins", __name__]


def default_pool_size() -> int:
    """Worker processes for this machine's cores; 0, rendering in the caller's process, if it has few."""
    return max(0, min(_MAX_WORKERS, len(os.sched_getaffinity(0)) - _CORES_FOR_OTHERS))


class RendererPool:
    """Processes that render conversations for one model, as `Renderer` does.

    An image that a worker has processed is left to that worker when it comes again, so that it is
    processed once; a request with several images goes to a worker that knows them all, if there is one.
    A worker that dies is replaced; its request is tried once more, then fails alone.

    Args:
        adapter: The model; its plugin must be an installed one, since workers find it by name.
        config: Of the engine that the requests are for.
        policy: What images may be fetched, and how large they may be.
        size: Number of workers, at least 1.
        cache_gb: Size of each worker's cache of processed images, in GB; see `divide_image_cache`.
    """

    def __init__(
        self, adapter: Adapter, config: VllmConfig, policy: MediaPolicy, size: int, cache_gb: float
    ) -> None:
        self._directory = SharedMemoryDirectory()
        self._policy = policy
        self._given = (adapter, config, policy, cache_gb)
        # On a thread: starting the first one waits until vLLM is imported; the engine starts meanwhile.
        starter = ThreadPoolExecutor(1)
        self._starting = starter.submit(self._start_all, size)
        starter.shutdown(wait=False)
        self._affinity = ImageAffinity(size)
        self._ended = False

    async def render(self, conversation: Conversation) -> Rendered:
        """The engine's input for a conversation.

        Raises:
            RequestError: The conversation, one of its images or its length is at fault, or two
                workers died of it.
        """
        # Unpickled only once a worker has taken the task, so that it alone can die of the content.
        pickled = await self._pickled(conversation)
        if not self._starting.done():
            await asyncio.shield(asyncio.wrap_future(self._starting))
        worker = self._affinity.choose((*conversation.images, *conversation.videos))
        deaths = 0
        while deaths < 2:
            try:
                return await self._render_once(worker, pickled)
            except ProcessDied:
                deaths += 1
            except TaskDropped:  # of another request, which fails if that happens twice
                continue
        raise RequestError(
            "rendering the request ended its process twice",
            hint="The machine may be short of memory: use fewer renderers or smaller images.",
        )

    @property
    def directory(self) -> str:
        """The directory of rendered requests that this process has not taken yet."""
        return self._directory.path

    def shutdown(self) -> None:
        """End the workers; what they work at is dropped."""
        self._ended = True
        if self._starting.exception() is None:
            for worker in self._workers:
                worker.kill()
        self._directory.remove()

    @property
    def _workers(self) -> list[WorkerProcess]:
        return self._starting.result()

    def _start_all(self, size: int) -> list[WorkerProcess]:
        return [self._start() for _ in range(size)]

    def _start(self) -> WorkerProcess:
        # One import of vLLM for all workers, of which each is a fork of the process that did it.
        context = get_context("forkserver")
        context.set_forkserver_preload(_IMPORTED_ONCE)
        # The renderer is created with the first task, so that it loads while the engine does.
        return WorkerProcess(context, _prepare, self._given, _warm_up)

    async def _pickled(self, conversation: Conversation) -> bytes:
        # An image that was opened from a file must be decoded to be pickled.
        if any(isinstance(source, Image.Image) for source in conversation.images):
            return await asyncio.to_thread(_pickled_with_images, conversation, self._policy)
        return pickle.dumps(conversation)

    def _submit(self, worker: int, pickled: bytes, path: str) -> Future[Stored]:
        if self._ended:
            raise EngineError("the engine has been shut down")
        try:
            return self._workers[worker].submit(_render, pickled, path, self._threads())
        except TaskDropped:
            self._workers[worker] = self._start()
            return self._workers[worker].submit(_render, pickled, path, self._threads())

    def _threads(self) -> int:
        """The threads that the next request may use: all cores if the pool is idle, one under load."""
        return max(1, min(_MAX_THREADS, len(os.sched_getaffinity(0)) // (self._affinity.busy + 1)))

    async def _render_once(self, worker: int, pickled: bytes) -> Rendered:
        path = self._directory.new_file()
        task = self._submit(worker, pickled, path)
        self._affinity.begin(worker)
        task.add_done_callback(lambda _: self._affinity.end(worker))
        try:
            stored = await self._workers[worker].result(task)
        except (asyncio.CancelledError, ProcessDied, TaskDropped):
            # Nobody takes the file: the worker may write it yet, or have written it before it died.
            task.add_done_callback(lambda _: Path(path).unlink(missing_ok=True))
            raise
        rendered: Rendered = take(stored)
        return rendered


class ImageAffinity:
    """Which worker has processed which images, and how busy each is."""

    def __init__(self, size: int, most_images: int = 100_000) -> None:
        self._busy_with = [0] * size
        self._workers_of: OrderedDict[int, set[int]] = OrderedDict()
        self._most_images = most_images
        # Requests end on other threads than they begin.
        self._lock = Lock()

    def choose(self, images: Sequence[ImageSource | VideoSource]) -> int:
        """The least busy of those that have processed all of the images and videos, or of all if none has."""
        keys = [
            hash(image) if isinstance(image, (str, bytes, Path, Pages)) else id(image) for image in images
        ]
        knowing = set.intersection(*(self._workers_of.get(key, set()) for key in keys))
        chosen = min(knowing or range(len(self._busy_with)), key=self._busy_with.__getitem__)
        for key in keys:
            self._workers_of.setdefault(key, set()).add(chosen)
            self._workers_of.move_to_end(key)
        while len(self._workers_of) > self._most_images:
            self._workers_of.popitem(last=False)
        return chosen

    @property
    def busy(self) -> int:
        """The number of requests that workers have been given and not finished."""
        return sum(self._busy_with)

    def begin(self, worker: int) -> None:
        """Record that a worker was given a request."""
        with self._lock:
            self._busy_with[worker] += 1

    def end(self, worker: int) -> None:
        """Record that it has finished one."""
        with self._lock:
            self._busy_with[worker] -= 1


def _pickled_with_images(conversation: Conversation, policy: MediaPolicy) -> bytes:
    for index, (message, image) in enumerate(conversation.image_places()):
        if isinstance(image.source, Image.Image):
            with locating_errors(message, index):
                load_opened_image(image.source, policy)
    return pickle.dumps(conversation)


# Below, what runs in a worker.


@dataclass
class _Worker:
    """The arguments of a worker; the renderer is created with its first task."""

    adapter: Adapter
    config: VllmConfig
    policy: MediaPolicy
    cache_gb: float

    @cached_property
    def loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.new_event_loop()

    @cached_property
    def renderer(self) -> Renderer:
        # Not in the initializer: an error there would end worker after worker.
        from vllm.plugins import load_general_plugins
        from vllm.renderers import renderer_from_config

        load_general_plugins()
        self.config.model_config.multimodal_config.mm_processor_cache_gb = self.cache_gb
        return Renderer(self.adapter, renderer_from_config(self.config), self.policy)


_worker: _Worker | None = None


def _prepare(*given: Any) -> None:
    global _worker  # noqa: PLW0603  (a process's initializer has no other way to pass something on)
    _worker = _Worker(*given)


def _warm_up() -> None:
    assert _this_worker().renderer


def _this_worker() -> _Worker:
    assert _worker is not None, "the process was not started by a RendererPool"
    return _worker


def _render(pickled: bytes, path: str, threads: int) -> Stored:
    worker = _this_worker()
    if threads != torch.get_num_threads():
        torch.set_num_threads(threads)
    try:
        conversation: Conversation = pickle.loads(pickled)
        rendered = worker.loop.run_until_complete(worker.renderer.render(conversation))
    except Exception as error:  # of a library, perhaps one that cannot be pickled
        raise as_request_error(error) from None
    try:
        return store(rendered, path)
    except OSError as error:
        raise RequestError(
            f"there is no space for the rendered request ({error})",
            hint="Give the container more shared memory, or use no renderer processes.",
        ) from None
