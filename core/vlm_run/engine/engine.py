"""The engine: vLLM's asynchronous engine behind plain and asynchronous functions alike."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from vlm_run.engine.arguments import vllm_config
from vlm_run.engine.image_fetcher import Fetcher
from vlm_run.engine.loop_thread import LoopThread, all_or_none
from vlm_run.engine.renderer import Rendered, Renderer
from vlm_run.engine.rendering_front import RenderingFront, start_renderer_pool
from vlm_run.engine.sampling import sampling_params
from vlm_run.engine.versions import check_serves, request_errors
from vlm_run.engine.vllm_plugin import DIES_WITH_PARENT
from vlm_run.errors import EngineError, RequestError, VlmRunError
from vlm_run.media import MediaPolicy
from vlm_run.prompts.conversation import Conversation
from vlm_run.request import Request, Sampling
from vlm_run.response import Delta, Response, Trace, Usage

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from vllm import CompletionOutput, SamplingParams
    from vllm.config import VllmConfig
    from vllm.v1.engine.async_llm import AsyncLLM

    from vlm_run.adapter import Adapter
    from vlm_run.engine.renderer_pool import RendererPool

# Requests made ready for an engine that has all it takes; enough to keep any pool of renderers busy.
_MOST_AHEAD = 32

RequestLike: TypeAlias = Request | Conversation | Mapping[str, Any] | str
SamplingLike: TypeAlias = Sampling | Mapping[str, Any] | None


class Engine:
    """A running model.

    >>> with Registry.load("demo-llava").engine() as engine:  # doctest: +SKIP
    ...     (answer,) = engine.infer([{"query": "How many red circles are there?", "images": ["p.png"]}])
    ...     print(answer.response)

    A script that starts one needs `if __name__ == "__main__":`, since vLLM starts processes.

    Args:
        adapter: The model, from `Registry.load`.
        policy: What images may be fetched, and how large they may be.
        renderers: Processes that prepare requests with images. By default as many as the
            machine's cores suggest; 0 prepares them in this process.
        options: Engine options in `vllm.EngineArgs`' names, on top of the plugin's.

    Raises:
        EngineError: An option is unknown, or vLLM could not start.
    """

    def __init__(
        self,
        adapter: Adapter,
        *,
        policy: MediaPolicy | None = None,
        renderers: int | None = None,
        **options: Any,
    ) -> None:
        check_serves(adapter.spec)  # before what imports torch, which may be as little there as vLLM
        from vlm_run.engine.renderer_pool import default_pool_size

        pool_size = default_pool_size() if renderers is None else renderers
        self.adapter = adapter.with_engine_kwargs(options)
        self._policy = policy or MediaPolicy()
        self._config = vllm_config(adapter, options)
        self._pool: RendererPool | None = None
        self._thread = LoopThread(f"vlm-run {adapter.spec.model_type}")
        try:
            self._pool = self._thread.run(_start_pool(self.adapter, self._config, self._policy, pool_size))
            self._llm: AsyncLLM = self._thread.run(_start(self._config))
        except BaseException as error:
            self._thread.stop()
            self._stop_pool()
            if not isinstance(error, Exception):
                raise
            raise EngineError(
                f"vLLM could not start '{adapter.spec.model_type}': {type(error).__name__}: {error}",
                hint="Run again with --verbose for vLLM's own log.",
            ) from error
        self._front = RenderingFront(Renderer(self.adapter, self._llm.renderer, self._policy), self._pool)
        # As many as the engine answers at once, and those that are made ready meanwhile. More would
        # only hold pictures in memory while they wait for their turn.
        at_once = self._config.scheduler_config.max_num_seqs
        self._in_flight = asyncio.Semaphore(at_once + min(at_once, _MOST_AHEAD))

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The checkpoint's tokenizer, of transformers."""
        self._check_running()
        return self._llm.get_tokenizer()

    def infer(self, requests: Iterable[RequestLike], sampling: SamplingLike = None) -> list[Response]:
        """The responses to requests, in their order; the engine batches them as it sees fit.

        A request that cannot be served has `error` set in its response and harms no other.

        Args:
            requests: Each in any shape that `Request.parse` takes.
            sampling: For all requests that bring no sampling parameters of their own.

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

    def stream(self, request: RequestLike, sampling: SamplingLike = None) -> Iterator[Delta]:
        """The answer to one request, in pieces as they come; the last carries the response.

        Leaving the loop early stops the answer.

        Raises:
            RequestError: The request cannot be served.
            EngineError: The engine has died.
        """
        self._check_running()
        return self._thread.iterate(self._stream(request, Sampling.parse(sampling)))

    def astream(self, request: RequestLike, sampling: SamplingLike = None) -> AsyncIterator[Delta]:
        """As `stream`, for use in an event loop."""
        self._check_running()
        return self._thread.iterate_async(self._stream(request, Sampling.parse(sampling)))

    def trace(self, requests: Iterable[RequestLike], max_tokens: int) -> list[Trace]:
        """Greedy answers token by token, in the order of the requests.

        Args:
            requests: Each in any shape that `Request.parse` takes; their sampling is not looked at.
            max_tokens: Most tokens in an answer.

        Raises:
            RequestError: One of the requests cannot be served.
            EngineError: The engine has died.
        """
        self._check_running()
        return self._thread.run(self._traces(list(requests), Sampling(max_tokens=max_tokens)))

    @property
    def dtype(self) -> str:
        """Of weights and activations, as in `bfloat16`."""
        return str(self._config.model_config.dtype).removeprefix("torch.")

    def as_completed(
        self, requests: Iterable[RequestLike], sampling: SamplingLike = None, *, window: int | None = None
    ) -> Iterator[tuple[int, Response]]:
        """Responses as they finish, each with the number of its request, from 0 on.

        Requests are taken as the engine has room for them, so they may be more than fit in
        memory. One that cannot be served has `error` set in its response and harms no other.
        Leaving the loop early stops the answers under way.

        Args:
            requests: Each in any shape that `Request.parse` takes.
            sampling: For all requests that bring no sampling parameters of their own.
            window: Most requests taken beyond the oldest that is not answered; a caller who
                wants the answers in order holds no more than this back.

        Raises:
            RequestError: `sampling` is malformed.
            EngineError: The engine has died.
        """
        self._check_running()
        parsed = Sampling.parse(sampling)
        # Twice what the scheduler takes: while one answer is handed out, the next is under way.
        at_once = 2 * self._config.scheduler_config.max_num_seqs
        fetcher = Fetcher(self._policy)
        return self._thread.as_completed(
            (self._answer(request, parsed, fetcher) for request in requests), at_once, window
        )

    def stream_all(
        self, requests: Iterable[RequestLike], sampling: SamplingLike = None
    ) -> Iterator[tuple[int, Delta]]:
        """The answers to requests in pieces as they come, each with the number of its request.

        The last piece of each carries its response, in which `error` is set if it failed. Leaving
        the loop early stops all answers.

        Raises:
            RequestError: `sampling` is malformed.
            EngineError: The engine has died.
        """
        self._check_running()
        return self._thread.iterate(self._stream_all(list(requests), Sampling.parse(sampling)))

    def using(self, adapter: Adapter) -> Engine:
        """The same running model behind another adapter, to try a chat template without loading again.

        Args:
            adapter: For the same checkpoint. Its engine options have no effect.

        Returns:
            An engine that lives as long as this one; shutting down either ends both.
        """
        self._check_running()
        other = copy(self)
        other.adapter = adapter
        # Without the pool, whose workers render with this engine's adapter.
        other._front = RenderingFront(Renderer(adapter, self._llm.renderer, self._policy), None)
        return other

    def shutdown(self) -> None:
        """Stop the engine and its processes; what still runs is dropped. Safe to call twice."""
        if self._thread.running:
            self._stop_pool()  # first, since what its workers were at ends on the loop
            self._thread.run(_stop(self._llm))
            self._thread.stop()
            del self._llm, self._front  # vLLM objects that outlive the interpreter's modules complain

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()

    def _stop_pool(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def _check_running(self) -> None:
        if not self._thread.running:
            raise EngineError("the engine has been shut down")

    async def _infer(self, requests: list[RequestLike], sampling: Sampling) -> list[Response]:
        fetcher = Fetcher(self._policy)
        return await all_or_none(self._answer(request, sampling, fetcher) for request in requests)

    async def _answer(self, request: RequestLike, sampling: Sampling, fetcher: Fetcher) -> Response:
        try:
            async with self._in_flight:
                async for delta in self._stream(request, sampling, fetcher):
                    if delta.response is not None:
                        return delta.response
        except EngineError:
            raise
        except VlmRunError as error:
            return Response(finish_reason="error", error=error)
        raise AssertionError("a stream ends with its response")

    async def _stream_all(
        self, requests: list[RequestLike], sampling: Sampling
    ) -> AsyncIterator[tuple[int, Delta]]:
        pieces: asyncio.Queue[tuple[int, Delta] | Exception] = asyncio.Queue()
        fetcher = Fetcher(self._policy)

        async def put(number: int, request: RequestLike) -> None:
            try:
                async with self._in_flight:
                    async for delta in self._stream(request, sampling, fetcher):
                        pieces.put_nowait((number, delta))
            except VlmRunError as error:
                if isinstance(error, EngineError):
                    pieces.put_nowait(error)
                else:
                    pieces.put_nowait((number, Delta("", Response(finish_reason="error", error=error))))
            except Exception as error:
                pieces.put_nowait(error)

        tasks = [asyncio.create_task(put(number, request)) for number, request in enumerate(requests)]
        unfinished = len(tasks)
        try:
            while unfinished:
                piece = await pieces.get()
                if isinstance(piece, Exception):
                    raise piece
                unfinished -= piece[1].response is not None
                yield piece
        finally:
            for task in tasks:
                task.cancel()

    async def _stream(
        self, request: RequestLike, sampling: Sampling, fetcher: Fetcher | None = None
    ) -> AsyncIterator[Delta]:
        started = first = time.perf_counter()
        parsed = Request.parse(request)
        rendered = await self._front.render(parsed.conversation, fetcher or Fetcher(self._policy))
        handed_on = time.perf_counter()
        text = ""
        answers: dict[int, CompletionOutput] = {}
        with _vllm_errors():
            params = self._sampling_params(parsed.sampling or sampling, rendered)
            async for output in self._llm.generate(rendered.engine_input, params, uuid.uuid4().hex):
                answers |= {answer.index: answer for answer in output.outputs}
                if 0 not in answers:
                    continue
                answer = answers[0]
                if not text and answer.token_ids:
                    first = time.perf_counter()
                # Byte-level tokenizers make the blank between prompt and answer part of the answer.
                whole = answer.text.lstrip()
                delta, text = whole[len(text) :], whole
                if not output.finished:
                    yield Delta(delta)
                    continue
                ended = time.perf_counter()
                completion_tokens = sum(len(each.token_ids) for each in answers.values())
                yield Delta(
                    delta,
                    Response(
                        response=text,
                        history=parsed.conversation.to_history(text),
                        usage=Usage(rendered.prompt_tokens, rendered.image_tokens, completion_tokens),
                        finish_reason=answer.finish_reason or "stop",
                        seconds=ended - started,
                        first_token_seconds=first - started,
                        responses=tuple(answers[i].text.lstrip() for i in range(params.n))
                        if params.n > 1
                        else (),
                        stages=replace(rendered.stages, engine=ended - handed_on),
                    ),
                )

    async def _traces(self, requests: list[RequestLike], sampling: Sampling) -> list[Trace]:
        fetcher = Fetcher(self._policy)
        return await all_or_none(self._trace(request, sampling, fetcher) for request in requests)

    async def _trace(self, request: RequestLike, sampling: Sampling, fetcher: Fetcher) -> Trace:
        parsed = Request.parse(request)
        async with self._in_flight:
            rendered = await self._front.render(parsed.conversation, fetcher)
            with _vllm_errors():
                params = self._sampling_params(sampling, rendered, logprobs=0)  # of the chosen token alone
                async for output in self._llm.generate(rendered.engine_input, params, uuid.uuid4().hex):
                    answer = output.outputs[0]
        steps = zip(answer.token_ids, answer.logprobs, strict=True)
        return Trace(
            response=answer.text.lstrip(),
            prompt_token_ids=tuple(rendered.engine_input["prompt_token_ids"]),
            token_ids=tuple(answer.token_ids),
            logprobs=tuple(step[token].logprob for token, step in steps),
        )

    def _sampling_params(self, sampling: Sampling, rendered: Rendered, **more: Any) -> SamplingParams:
        return sampling_params(
            sampling,
            room=self._config.model_config.max_model_len - rendered.prompt_tokens,
            tokenizer=self._llm.get_tokenizer(),
            stop=self.adapter.spec.stop,
            **more,
        )


@contextmanager
def _vllm_errors() -> Iterator[None]:
    """What vLLM raises about a request, or about itself, as vlm-run's own errors."""
    from vllm.v1.engine.exceptions import EngineDeadError

    try:
        yield
    except EngineDeadError as error:
        raise EngineError("the vLLM engine has died", hint="Its own log says why.") from error
    except request_errors() as error:
        raise RequestError(f"vLLM refuses the request: {error}") from error


async def _start(config: VllmConfig) -> AsyncLLM:
    # On the loop's thread, where vLLM then starts the task that hands out its results.
    from vllm.v1.engine.async_llm import AsyncLLM

    os.environ[DIES_WITH_PARENT] = "1"
    try:
        return AsyncLLM.from_vllm_config(config, disable_log_stats=True)
    finally:
        del os.environ[DIES_WITH_PARENT]


async def _start_pool(
    adapter: Adapter, config: VllmConfig, policy: MediaPolicy, size: int
) -> RendererPool | None:
    # On the loop's thread too: its processes must not receive Ctrl-C either.
    return start_renderer_pool(adapter, config, policy, size)


async def _stop(llm: AsyncLLM) -> None:
    llm.shutdown()
