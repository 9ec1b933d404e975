"""Errors of vlm-run as HTTP answers, in the shape of OpenAI's and vLLM's."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import Request
from starlette.responses import JSONResponse

from vlm_run.errors import EngineError, RequestError, VlmRunError
from vlm_run.server.logs import logger
from vlm_run.server.metrics import count_rejection


async def answer_error(_: Request, error: Exception) -> JSONResponse:
    """The answer to a request that met `error`: 400 where the request is at fault."""
    assert isinstance(error, VlmRunError)
    count_rejection(error)
    logger.info("refused: %s", error)
    return error_response(status_of(error), str(error), param=_parameter(error))


def error_response(status: HTTPStatus, message: str, *, param: str | None = None) -> JSONResponse:
    """An answer in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`."""
    kind = "".join(word.capitalize() for word in status.phrase.split())
    kind = kind if kind.endswith("Error") else f"{kind}Error"
    body = {"error": {"message": message, "type": kind, "param": param, "code": status.value}}
    return JSONResponse(body, status_code=status)


def status_of(error: VlmRunError) -> HTTPStatus:
    """400 where the request is at fault, 503 where the engine is, 500 where a plugin is."""
    if isinstance(error, RequestError):
        return HTTPStatus.BAD_REQUEST
    if isinstance(error, EngineError):
        return HTTPStatus.SERVICE_UNAVAILABLE
    return HTTPStatus.INTERNAL_SERVER_ERROR


def _parameter(error: VlmRunError) -> str | None:
    """The field at fault, as OpenAI names it."""
    if not isinstance(error, RequestError):
        return None
    if error.message_index is not None:
        return f"messages[{error.message_index}]"
    if error.image_index is not None:
        return f"images[{error.image_index}]"
    return "messages"
