"""Errors of vlm-run as HTTP answers, in the shape of OpenAI's and vLLM's."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from vlm_run.errors import EngineError, RequestError, VlmRunError, printable
from vlm_run.server.logs import logger
from vlm_run.server.metrics import count_rejection

_LOGGED = 500


class Refusal(ValueError):
    """A request's error in a form that all of vLLM's endpoints, too, know as the client's fault.

    Those of Anthropic's and Cohere's API catch every error, and answer 500 to what they do not know.
    """

    def __init__(self, error: RequestError) -> None:
        super().__init__(str(error))
        self.error = error


def refuse(error: RequestError) -> Refusal:
    """What to raise towards vLLM for a request's error."""
    _note(error)
    return Refusal(error)


async def answer_refusal(_: Request, refusal: Exception) -> JSONResponse:
    """The answer of an endpoint that lets a refusal pass."""
    assert isinstance(refusal, Refusal)
    return _answer(refusal.error)


async def answer_error(_: Request, error: Exception) -> JSONResponse:
    """The answer to a request that met `error`: 400 where the request is at fault."""
    assert isinstance(error, VlmRunError)
    _note(error)
    return _answer(error)


async def answer_http_error(_: Request, error: Exception) -> JSONResponse:
    """The answer where there is no such path, or not with such a method."""
    assert isinstance(error, HTTPException)
    answer = error_response(HTTPStatus(error.status_code), error.detail)
    answer.headers.update(error.headers or {})
    return answer


def _note(error: VlmRunError) -> None:
    count_rejection(error)
    # On one line: what a client wrote must not look like a line of another request.
    logger.info("refused: %s", printable(str(error), _LOGGED))


def _answer(error: VlmRunError) -> JSONResponse:
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
