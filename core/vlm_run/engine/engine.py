"""The engine: vLLM's asynchronous engine behind plain and asynchronous functions alike."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from vlm_run.engine.arguments import vllm_config
from vlm_run.engine.generation import Generator, RequestLike
from vlm_run.engine.image_budget import check_image_budget
from vlm_run.engine.image_fetcher import Fetcher
from vlm_run.engine.loop_thread import LoopThread, all_or_none
from vlm_run.engine.lora import LoraAdapters, lora_engine_options, most_loras
from vlm_run.engine.quiet import quiet_shutdown
from vlm_run.engine.renderer import Renderer
from vlm_run.engine.rendering_front import RenderingFront, start_renderer_pool
from vlm_run.engine.versions import check_serves
from vlm_run.engine.vllm_internals import forget_shutdown
from vlm_run.engine.vllm_plugin import DIES_WITH_PARENT
from vlm_run.errors import EngineError
from vlm_run.explain.start_notes import start_notes
from vlm_run.media import MediaPolicy
from vlm_run.request import Sampling
from vlm_run.response import Delta, Response

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from vllm.config import VllmConfig
    from vllm.v1.engine.async_llm import AsyncLLM

    from vlm_run.adapter import Adapter
    from vlm_run.engine.renderer_pool import RendererPool

logger = logging.getLogger(__name__)

# Requests rendered while the engine has as many as it can run; enough to keep any pool of renderers busy.
_MAX_RENDERED_AHEAD = 32

SamplingLike: TypeAlias = Sampling | Mapping[str, Any] | None


class Engine:
    """A running model.

    >>> with Registry.load("demo-llava").engine() as engine:  # doctest: +SKIP
    ...     (answer,) = engine.infer([{"query": "How many red circles are there?", "images": ["p.png"]}])
    ...     print(answer.response)

    A script that starts one needs `if __name__ == "__main__":`, since vLLM starts processes. The engine
    stops at the end of the `with` block or with `shutdown`, and with the interpreter at the latest.

    Args:
        adapter: The model, from `Registry.load`.
        policy: What images may be fetched, and how large they may be.
        renderers: Processes that prepare requests with images. By default as many as the
            machine's cores suggest; 0 prepares them in this process.
        loras: LoRA adapters by name, each a directory in PEFT's format or a hub id. A request chooses one
            with `lora`. The engine options that they need are set; yours take precedence.
        lora: The name of the adapter of requests that name none; None for the base model.
        options: Engine options in `vllm.EngineArgs`' names, on top of the plugin's.

    Raises:
        EngineError: An option is unknown, an adapter cannot be loaded, or vLLM could not start.
    """

    def __init__(
        self,
        adapter: Adapter,
        *,
        policy: MediaPolicy | None = None,
        renderers: int | None = None,
        loras: Mapping[str, str | Path] | None = None,
        lora: str | None = None,
        **options: Any,
    ) -> None:
        check_serves(adapter.spec)  # before what imports torch, which may be as little there as vLLM
        from vlm_run.engine.renderer_pool import default_pool_size

        pool_size = default_pool_size() if renderers is None else renderers
        given = {**adapter.base_engine_kwargs, **options}
        options = {**options, **lora_engine_options(loras or {}, given)}
        self._loras = LoraAdapters(loras or {}, lora, most_loras(options))
        self.adapter = adapter.with_engine_kwargs(options)
        for note in start_notes(adapter, **options):
            logger.warning(note)
        self._policy = policy or MediaPolicy()
        self._config = vllm_config(adapter, options)
        check_image_budget(self.adapter, self._config)
        self._pool: RendererPool | None = None
        self._thread = LoopThread(f"vlm-run {adapter.spec.model_type}")
        try:
            self._pool = self._thread.run(_start_pool(self.adapter, self._config, self._policy, pool_size))
            if self._pool is not None:
                self._thread.at_stop(self._pool.shutdown)
            self._llm: AsyncLLM = self._thread.run(_start(self._config, self._loras))
            self._thread.at_stop(partial(_shut_down, self._llm))
        except BaseException as error:
            self._thread.stop()
            if isinstance(error, EngineError) or not isinstance(error, Exception):
                raise
            raise EngineError(
                f"vLLM could not start '{adapter.spec.model_type}': {type(error).__name__}: {error}",
                hint="Run again with --verbose for vLLM's own log.",
            ) from error
        at_once = self._config.scheduler_config.max_num_seqs
        self._generator = Generator(
            self.adapter,
            self._llm,
            RenderingFront(Renderer(self.adapter, self._llm.renderer, self._policy), self._pool),
            self._loras,
            self._config.model_config.max_model_len,
            # Those that the engine runs at once, and some that are rendered meanwhile.
            asyncio.Semaphore(at_once + min(at_once, _MAX_RENDERED_AHEAD)),
        )

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The checkpoint's tokenizer, of transformers."""
        self._check_running()
        return self._llm.get_tokenizer()

    def add_lora(self, name: str, path: str | Path) -> None:
        """Load another LoRA adapter, for requests that name it. Needs the engine option `enable_lora`.

        Args:
            name: What requests call it.
            path: A directory in PEFT's format, or a hub id.

        Raises:
            EngineError: The adapter cannot be loaded, or another one has its name.
        """
        self._check_running()
        self._thread.run(self._loras.add(self._llm, name, str(path)))

    def infer(self, requests: Iterable[RequestLike], sampling: SamplingLike = None) -> list[Response]:
        """The responses to requests, in their order; the engine batches them as it sees fit.

        A request that cannot be served has `error` set in its response and harms no other.

        Args:
            requests: Each in any shape that `Request.parse` takes.
            sampling: For requests without sampling parameters.

        Raises:
            RequestError: `sampling` is malformed.
            EngineError: The engine has died.
        """
        self._check_running()
        return self._thread.run(self._infer(list(requests), Sampling.parse(sampling)))

    async def ainfer(self, requests: Iterable[RequestLike], sampling: SamplingLike = None) -> list[Response]:
        """As `infer`, for use in an event loop."""
        self._check_running()
        return await self._thread.run_async(self._infer(list(requests), Sampling.parse(sampling)))

    async def answer(
        self, request: RequestLike, sampling: SamplingLike = None, *, fetcher: Fetcher | None = None
    ) -> Response:
        """The response to one request, for use in an event loop.

        A request that cannot be served has `error` set in its response.

        Args:
            request: In any shape that `Request.parse` takes.
            sampling: Sampling parameters of requests that have none of their own.
            fetcher: Shared with the other requests of a batch, so that each URL is fetched once.

        Raises:
            RequestError: `sampling` is malformed.
            EngineError: The engine has died.
        """
        self._check_running()
        parsed, fetcher = Sampling.parse(sampling), fetcher or Fetcher(self._policy)
        return await self._thread.run_async(self._generator.answer(request, parsed, fetcher))

    @property
    def capacity(self) -> int:
        """The number of requests that keep the engine busy: twice what its scheduler runs at a time.

        While one answer is handed out, the next is under way.
        """
        return 2 * int(self._config.scheduler_config.max_num_seqs)

    def stream(self, request: RequestLike, sampling: SamplingLike = None) -> Iterator[Delta]:
        """The answer to one request, in pieces as they come; the last carries the response.

        Leaving the loop early stops the answer.

        Raises:
            RequestError: The request cannot be served.
            EngineError: The engine has died.
        """
        return self._thread.iterate(self._stream(request, sampling))

    def astream(self, request: RequestLike, sampling: SamplingLike = None) -> AsyncIterator[Delta]:
        """As `stream`, for use in an event loop."""
        return self._thread.iterate_async(self._stream(request, sampling))

    def as_completed(
        self, requests: Iterable[RequestLike], sampling: SamplingLike = None, *, window: int | None = None
    ) -> Iterator[tuple[int, Response]]:
        """Responses as they finish, each with the number of its request, from 0 on.

        Requests are taken as the engine has room for them, so they may be more than fit in
        memory. One that cannot be served has `error` set in its response and harms no other.
        Leaving the loop early stops the answers under way.

        Args:
            requests: Each in any shape that `Request.parse` takes.
            sampling: For requests without sampling parameters.
            window: Most requests taken beyond the oldest that is not answered; a caller who
                wants the answers in order holds no more than this back.

        Raises:
            RequestError: `sampling` is malformed.
            EngineError: The engine has died.
        """
        self._check_running()
        parsed = Sampling.parse(sampling)
        fetcher = Fetcher(self._policy)
        return self._thread.as_completed(
            (self._generator.answer(request, parsed, fetcher) for request in requests), self.capacity, window
        )

    def shutdown(self) -> None:
        """Stop the engine and its processes; what still runs is dropped. Safe to call twice."""
        if self._thread.running:
            self._thread.stop()
            del self._llm, self._generator  # with the images that they keep

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()

    def _check_running(self) -> None:
        if not self._thread.running:
            raise EngineError("the engine has been shut down")

    async def _infer(self, requests: list[RequestLike], sampling: Sampling) -> list[Response]:
        fetcher = Fetcher(self._policy)
        return await all_or_none(self._generator.answer(request, sampling, fetcher) for request in requests)

    def _stream(self, request: RequestLike, sampling: SamplingLike) -> AsyncIterator[Delta]:
        self._check_running()
        return self._generator.stream(request, Sampling.parse(sampling), Fetcher(self._policy))


async def _start(config: VllmConfig, loras: LoraAdapters) -> AsyncLLM:
    # On the loop's thread, where vLLM then starts the task that hands out its results.
    from vllm.v1.engine.async_llm import AsyncLLM

    from vlm_run.engine.request_metrics import RequestMetricsOnly

    os.environ[DIES_WITH_PARENT] = "1"
    try:
        llm = AsyncLLM.from_vllm_config(config, stat_loggers=[RequestMetricsOnly], disable_log_stats=True)
    finally:
        del os.environ[DIES_WITH_PARENT]
    try:
        await loras.load(llm)
    except BaseException:
        llm.shutdown()
        raise
    return llm


async def _start_pool(
    adapter: Adapter, config: VllmConfig, policy: MediaPolicy, size: int
) -> RendererPool | None:
    # On the loop's thread too: its processes must not receive Ctrl-C either.
    return start_renderer_pool(adapter, config, policy, size)


def _shut_down(llm: AsyncLLM) -> None:
    with quiet_shutdown():
        llm.shutdown()
    forget_shutdown(llm)
