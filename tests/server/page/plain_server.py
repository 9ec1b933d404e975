"""The chat page without an engine: each question is answered with what its request costs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from vlm_run import Conversation, Limits, Registry
from vlm_run.errors import VlmRunError
from vlm_run.explain import Explanation, explain
from vlm_run.media import MediaPolicy
from vlm_run.server import adapter_endpoint
from vlm_run.server.error_responses import answer_error, answer_validation_error
from vlm_run.server.page import add_page
from vlm_run.server.served_model import ServedModel

from .listener import Listener


class PlainServer(Listener):
    """The page and the adapter's endpoints for a model, in an application without vLLM.

    A request for an answer is read and its videos are decoded as they are for an engine. The answer tells how
    many tokens its videos take, and is the same whether it is right or wrong for the model.

    Attributes:
        asked: The bodies of the requests for answers.
        prompts: The prompt of each of them.
    """

    def __init__(self, model_type: str, limits: Limits, **policy: Any) -> None:
        self.asked: list[dict[str, Any]] = []
        self.prompts: list[str] = []
        self._adapter = Registry.load(model_type, limits=limits)
        self._policy = MediaPolicy.for_server().model_copy(update={"allow_private_addresses": True, **policy})
        most = self._adapter.base_engine_kwargs["limit_mm_per_prompt"]
        app = FastAPI()
        app.state.served = ServedModel(
            adapter=self._adapter,
            policy=self._policy,
            max_model_len=self._adapter.spec.context_length or 0,
            max_images=most["image"],
            max_videos=most.get("video", 0),
            vllm="none",
        )
        app.add_exception_handler(VlmRunError, answer_error)
        app.add_exception_handler(RequestValidationError, answer_validation_error)
        app.get("/v1/models")(self._models)
        app.post("/tokenize")(self._tokenize)
        app.post("/v1/chat/completions")(self._answer)
        app.include_router(adapter_endpoint.router)
        add_page(app)
        super().__init__(app)

    def _models(self) -> dict[str, Any]:
        return {"data": [{"id": self._adapter.spec.model_type}]}

    async def _tokenize(self, request: Request) -> dict[str, Any]:
        return {"count": self._explain(await request.json()).text_tokens}

    async def _answer(self, request: Request) -> StreamingResponse:
        body = await request.json()
        explained = await run_in_threadpool(self._explain, body)
        self.asked.append(body)
        self.prompts.append(explained.prompt)
        return StreamingResponse(_events(explained), media_type="text/event-stream")

    def _explain(self, body: dict[str, Any]) -> Explanation:
        conversation = Conversation.from_messages(body["messages"])
        return explain(self._adapter, conversation, policy=self._policy)


def _events(explained: Explanation) -> Iterator[str]:
    usage = {"prompt_tokens": explained.total_tokens, "completion_tokens": 1, "total_tokens": 0}
    choice = {
        "index": 0,
        "delta": {"content": f"videos: {explained.video_tokens} tokens"},
        "finish_reason": "stop",
    }
    yield f"data: {json.dumps({'choices': [choice], 'usage': usage})}\n\ndata: [DONE]\n\n"
