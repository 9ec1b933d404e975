"""Greedy answers token by token, for comparing vLLM with another implementation."""

from __future__ import annotations

from collections.abc import Iterable

from vlm_run.engine.engine import Engine
from vlm_run.engine.generation import RequestLike
from vlm_run.engine.image_fetcher import Fetcher
from vlm_run.engine.loop_thread import all_or_none
from vlm_run.request import Sampling
from vlm_run.response import Trace


def trace(engine: Engine, requests: Iterable[RequestLike], max_tokens: int) -> list[Trace]:
    """Greedy answers token by token, in the order of the requests.

    Args:
        engine: A running engine.
        requests: In any form that `Request.parse` accepts; their own sampling is ignored.
        max_tokens: Maximum number of tokens in an answer.

    Raises:
        RequestError: One of the requests cannot be served.
        EngineError: The engine has died.
    """

    engine._check_running()

    async def traces() -> list[Trace]:
        fetcher = Fetcher(engine._policy)
        sampling = Sampling(max_tokens=max_tokens)
        return await all_or_none(engine._generator.trace(each, sampling, fetcher) for each in requests)

    return engine._thread.run(traces())


def dtype_of(engine: Engine) -> str:
    """The data type of the engine's weights and activations, as in `bfloat16`."""
    return str(engine._config.model_config.dtype).removeprefix("torch.")
