"""From a request to its answer: rendering, then vLLM's engine. Runs on the engine's event loop."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from vlm_run.engine.answer_boxes import answer_boxes
from vlm_run.engine.answer_text import without_leading_blank
from vlm_run.engine.image_fetcher import Fetcher
from vlm_run.engine.lora import LoraAdapters
from vlm_run.engine.renderer import Rendered
from vlm_run.engine.sampling import sampling_params, with_model_params
from vlm_run.engine.vllm_internals import request_errors
from vlm_run.errors import EngineError, RequestError, VlmRunError, as_request_error
from vlm_run.prompts.conversation import Conversation
from vlm_run.prompts.support import with_task_text
from vlm_run.request import Request, Sampling
from vlm_run.response import Delta, Response, Trace, Usage

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams
    from vllm.lora.request import LoRARequest
    from vllm.v1.engine.async_llm import AsyncLLM

    from vlm_run.adapter import Adapter
    from vlm_run.engine.rendering_front import RenderingFront

RequestLike: TypeAlias = Request | Conversation | Mapping[str, Any] | str
"""Any form of a request that `Request.parse` accepts."""


@dataclass(frozen=True, slots=True)
class Generator:
    """Answers single requests.

    Attributes:
        adapter: The model.
        llm: vLLM's engine.
        front: Renders requests.
        loras: The engine's LoRA adapters.
        max_model_len: Context length in tokens.
        in_flight: Bounds the requests that are rendered or generated at the same time, since
            waiting ones would hold decoded images in memory.
    """

    adapter: Adapter
    llm: AsyncLLM
    front: RenderingFront
    loras: LoraAdapters
    max_model_len: int
    in_flight: asyncio.Semaphore

    async def answer(self, request: RequestLike, sampling: Sampling, fetcher: Fetcher) -> Response:
        """The whole answer; the error of a request that cannot be served is in its `error`.

        Raises:
            EngineError: The engine has died.
        """
        try:
            async with self.in_flight:
                # vLLM hands over the whole answer at once, which saves a Python step per token.
                async for delta in self._generate(request, sampling, fetcher, stream=False):
                    if delta.response is not None:
                        return delta.response
        except EngineError:
            raise
        except VlmRunError as error:
            return Response(finish_reason="error", error=error)
        raise AssertionError("the last delta carries the response")

    def stream(self, request: RequestLike, sampling: Sampling, fetcher: Fetcher) -> AsyncIterator[Delta]:
        """The answer in pieces as they are generated; the last one carries the response.

        Raises:
            RequestError: The request cannot be served.
            EngineError: The engine has died.
        """
        return self._generate(request, sampling, fetcher, stream=True)

    async def trace(self, request: RequestLike, sampling: Sampling, fetcher: Fetcher) -> Trace:
        """The answer token by token, with the log-probability of each token.

        Raises:
            RequestError: The request cannot be served.
            EngineError: The engine has died.
        """
        async with self.in_flight:
            with request_boundary(self.llm):
                parsed = Request.parse(request)
                rendered = await self.front.render(parsed.conversation, fetcher)
                # logprobs=0 asks for the chosen token's alone.
                params = self._sampling_params(sampling, rendered, stream=False, logprobs=0)
                lora = self.loras.request(parsed.lora)
                async for output in self._outputs(parsed.conversation, rendered, params, lora):
                    answer = output.outputs[0]
        steps = zip(answer.token_ids, answer.logprobs, strict=True)
        return Trace(
            response=answer.text,
            prompt_token_ids=tuple(rendered.engine_input["prompt_token_ids"]),
            token_ids=tuple(answer.token_ids),
            logprobs=tuple(step[token].logprob for token, step in steps),
        )

    async def _generate(
        self, request: RequestLike, sampling: Sampling, fetcher: Fetcher, *, stream: bool
    ) -> AsyncIterator[Delta]:
        started = time.perf_counter()
        first_token_seconds = 0.0
        finish_reason = "stop"
        tokens = 0
        token_ids: list[int] = []
        stop_string: str | None = None
        texts: defaultdict[int, str] = defaultdict(str)
        with request_boundary(self.llm):
            parsed = Request.parse(request)
            lora = self.loras.request(parsed.lora)  # raises before the work of rendering
            rendered = await self.front.render(parsed.conversation, fetcher)
            rendered_at = time.perf_counter()
            params = self._sampling_params(parsed.sampling or sampling, rendered, stream=stream)
            async for output in self._outputs(parsed.conversation, rendered, params, lora):
                piece = ""
                for part in output.outputs:
                    texts[part.index] += part.text
                    tokens += len(part.token_ids)
                    if part.index == 0:
                        piece = part.text
                        token_ids.extend(part.token_ids)
                        finish_reason = part.finish_reason or finish_reason
                        stop_string = part.stop_reason if isinstance(part.stop_reason, str) else None
                first_token_seconds = first_token_seconds or _first_token_seconds(output)
                if not output.finished:
                    yield Delta(piece)
                    continue
                ended = time.perf_counter()
                yield Delta(
                    piece,
                    Response(
                        response=texts[0],
                        history=with_task_text(self.adapter.spec, parsed.conversation).to_history(texts[0]),
                        usage=Usage(
                            rendered.prompt_tokens, rendered.image_tokens, tokens, rendered.video_tokens
                        ),
                        finish_reason=finish_reason,
                        seconds=ended - started,
                        first_token_seconds=min(rendered_at + first_token_seconds, ended) - started,
                        responses=tuple(texts[number] for number in range(params.n)) if params.n > 1 else (),
                        stages=replace(rendered.stages, engine=ended - rendered_at),
                        boxes=answer_boxes(
                            self.adapter,
                            self.llm.get_tokenizer(),
                            parsed.conversation,
                            rendered,
                            texts[0],
                            token_ids=token_ids,
                            stop_string=stop_string,
                            is_cut=finish_reason == "length",
                        ),
                    ),
                )

    def _outputs(
        self,
        conversation: Conversation,
        rendered: Rendered,
        params: SamplingParams,
        lora: LoRARequest | None,
    ) -> AsyncIterator[RequestOutput]:
        outputs: AsyncGenerator[RequestOutput, None] = self.llm.generate(
            rendered.engine_input,
            params,
            uuid.uuid4().hex,
            # vLLM keeps what it caches for one adapter apart from that of the others.
            lora_request=lora,
        )
        # The blank before an answer that is continued separates two words.
        return outputs if conversation.continued else without_leading_blank(outputs, params)

    def _sampling_params(
        self, sampling: Sampling, rendered: Rendered, *, stream: bool, **more: Any
    ) -> SamplingParams:
        from vllm.sampling_params import RequestOutputKind

        params = sampling_params(
            sampling,
            tokens_left=self.max_model_len - rendered.prompt_tokens,
            tokenizer=self.llm.get_tokenizer(),
            stop=self.adapter.spec.stop,
            output_kind=RequestOutputKind.DELTA if stream else RequestOutputKind.FINAL_ONLY,
            **more,
        )
        return with_model_params(params, self.adapter.spec.sampling_params)


def _first_token_seconds(output: RequestOutput) -> float:
    """Seconds from vLLM's receipt of a request to its first token, by vLLM's own metrics; 0 before it."""
    return output.metrics.first_token_latency if output.metrics is not None else 0.0


@contextmanager
def request_boundary(llm: AsyncLLM) -> Iterator[None]:
    """Raise whatever goes wrong in one request as an error of that request, unless vLLM has died.

    Raises:
        EngineError: vLLM has died.
        VlmRunError: The request cannot be served; all others are unharmed.
    """
    from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

    try:
        yield
    except VlmRunError:
        raise
    except Exception as error:
        # vLLM wraps what it does not expect, in an error without a message.
        cause: Exception = error
        if isinstance(error, EngineGenerateError) and isinstance(error.__cause__, Exception):
            cause = error.__cause__
        if isinstance(cause, EngineDeadError) or llm.errored:
            raise EngineError("the vLLM engine has died", hint="See its log.") from error
        if isinstance(cause, request_errors()):
            raise RequestError(f"vLLM refuses the request: {cause}") from error
        raise as_request_error(cause) from error
