"""Several answers streamed together, as ms-swift's scripts read them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator

from vlm_run.engine.engine import Engine, SamplingLike
from vlm_run.engine.generation import RequestLike
from vlm_run.engine.image_fetcher import Fetcher
from vlm_run.errors import EngineError, VlmRunError
from vlm_run.request import Sampling
from vlm_run.response import Delta, Response


def stream_all(
    engine: Engine, requests: Iterable[RequestLike], sampling: SamplingLike = None
) -> Iterator[tuple[int, Delta]]:
    """The answers to requests in pieces as they are generated, each with the index of its request.

    The last piece of each carries its response, in which `error` is set if it failed. Leaving the
    loop early stops all answers.

    Args:
        engine: A running engine.
        requests: In any form that `Request.parse` accepts.
        sampling: For requests without sampling parameters of their own.

    Raises:
        RequestError: `sampling` is malformed.
        EngineError: The engine has died.
    """
    engine._check_running()
    return engine._thread.iterate(_stream_all(engine, list(requests), Sampling.parse(sampling)))


async def _stream_all(
    engine: Engine, requests: list[RequestLike], sampling: Sampling
) -> AsyncIterator[tuple[int, Delta]]:
    generator = engine._generator
    fetcher = Fetcher(engine._policy)
    pieces: asyncio.Queue[tuple[int, Delta] | EngineError] = asyncio.Queue()

    async def put(index: int, request: RequestLike) -> None:
        try:
            async with generator.in_flight:
                async for delta in generator.stream(request, sampling, fetcher):
                    pieces.put_nowait((index, delta))
        except EngineError as error:
            pieces.put_nowait(error)
        except VlmRunError as error:
            pieces.put_nowait((index, Delta("", Response(finish_reason="error", error=error))))

    tasks = [asyncio.create_task(put(index, request)) for index, request in enumerate(requests)]
    unfinished = len(tasks)
    try:
        while unfinished:
            piece = await pieces.get()
            if isinstance(piece, EngineError):
                raise piece
            unfinished -= piece[1].response is not None
            yield piece
    finally:
        for task in tasks:
            task.cancel()
