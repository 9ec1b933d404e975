"""Replicas that answer by a rule, for tests of what is sent where and of what happens at deaths."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, StreamingResponse
from starlette.responses import Response as HttpResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from vlm_run import Conversation, Request, Response, Sampling
from vlm_run.errors import ConversationError, EngineError

CAPACITY = 8


@dataclass
class Rule:
    """Answers a question with itself, unless it is one of the words below.

    Attributes:
        gate: Rows that say `wait` are answered once this file exists.
    """

    gate: Path | None = None
    capacity: int = CAPACITY

    def __call__(self) -> Rule:
        return self

    async def answer(self, request: Request, sampling: Sampling) -> Response:
        question = request.conversation.messages[-1].written
        if question == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if question == "engine dies":
            raise EngineError("the engine has died")
        if question == "bad":
            return Response(finish_reason="error", error=ConversationError("a bad row", message_index=0))
        if question == "mistake":
            raise ZeroDivisionError("a mistake")
        if question == "wait":
            while self.gate is not None and not self.gate.exists():
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.001)
        return Response(response=question)

    def shutdown(self) -> None:
        """Nothing was started."""


@dataclass
class NeverStarts:
    """A replica whose start fails, or kills its process."""

    dies: bool

    def __call__(self) -> Rule:
        if self.dies:
            os._exit(1)
        raise EngineError("no such engine option", hint="Try another.")


class RuleServer:
    """A server whose answers are its process id, or a stream that ends.

    A request with `wait` says so by a file in that directory, and waits for the file `open` in it; one with
    `seconds` takes as long.
    """

    async def __serve_build_asgi_app__(self) -> ASGIApp:
        from vlm_run.ray.serve import Named

        async def answer(request: HttpRequest) -> HttpResponse:
            asked = await request.json()

            async def lines() -> AsyncIterator[str]:
                yield "data: {}\n\n"
                await wait()
                yield "data: [DONE]\n\n"

            async def wait() -> None:
                if "wait" in asked:
                    directory = Path(asked["wait"])
                    (directory / uuid4().hex).touch()
                    while not (directory / "open").exists():
                        await asyncio.sleep(0.01)

            if asked.get("stream"):
                return StreamingResponse(lines(), media_type="text/event-stream")
            await wait()
            await asyncio.sleep(asked.get("seconds", 0))
            return JSONResponse({"pid": os.getpid()})

        return Named(Starlette(routes=[Route("/v1/chat/completions", answer, methods=["POST"])]))


def ask(*questions: str) -> list[Request]:
    return [Request(Conversation.from_query(question)) for question in questions]


def send_with_tests(module: object) -> None:
    """Let actors have this module's classes, which they cannot import."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(module)
