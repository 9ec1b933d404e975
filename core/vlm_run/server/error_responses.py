"""vlm-run's errors as HTTP responses, in the form of OpenAI's and vLLM's."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from vlm_run.errors import EngineError, RequestError, VlmRunError, printable
from vlm_run.server.metrics import count_rejection
from vlm_run.server.request_logs import logger
from vlm_run.server.validation_errors import describe

_MAX_LOGGED = 500
MALFORMED = (ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, TypeError)


class Refusal(ValueError):
    """A `RequestError` that vLLM's own endpoints recognize as the client's fault.

    The endpoints of Anthropic's and Cohere's API catch every exception and respond to any but a
    `ValueError` with status 500.
    """

    def __init__(self, error: RequestError) -> None:
        super().__init__(str(error))
        self.error = error


class MalformedError(RequestError):
    """A field of a request's body has a value that no endpoint accepts.

    Args:
        cause: What is wrong.
        hint: What to do about it.
        field: The field; None if it is the whole body.
        message_index: Zero-based index of the message at fault; None if it is no message.
    """

    def __init__(
        self,
        cause: str,
        *,
        hint: str | None = None,
        field: str | None = None,
        message_index: int | None = None,
    ) -> None:
        super().__init__(cause, hint=hint, message_index=message_index)
        self.field = field


def refuse(error: RequestError) -> Refusal:
    """The exception to raise through vLLM for a request's error, which is counted and logged."""
    _record(error)
    return Refusal(error)


async def answer_refusal(_: Request, refusal: Exception) -> JSONResponse:
    """Respond to a request whose refusal has passed through vLLM."""
    assert isinstance(refusal, Refusal)
    return _response(refusal.error)


async def answer_error(_: Request, error: Exception) -> JSONResponse:
    """Respond to a request that failed with `error`: 400 where the request is at fault."""
    assert isinstance(error, VlmRunError)
    _record(error)
    return _response(error)


async def answer_validation_error(_: Request, error: Exception) -> JSONResponse:
    """Respond to a request whose body has another form than its endpoint accepts."""
    assert isinstance(error, (RequestValidationError, ValidationError))
    message, parameter = describe(error.errors())
    count_rejection("malformed")
    logger.info("refused: %s", message)
    return error_response(HTTPStatus.BAD_REQUEST, message, param=parameter)


async def answer_unexpected_type(_: Request, error: Exception) -> JSONResponse:
    """Respond to a request on which vLLM's code failed because a value is not of the type that it expects.

    vLLM reports such errors as its own, with status 500. `MALFORMED` are the errors that Python raises.
    """
    logger.warning("a request is malformed, or there is a bug in vLLM or vlm-run", exc_info=error)
    count_rejection("malformed")
    cause = printable(f"the request is malformed ({type(error).__name__}: {error})", _MAX_LOGGED)
    return error_response(HTTPStatus.BAD_REQUEST, cause)


async def answer_http_error(_: Request, error: Exception) -> JSONResponse:
    """Respond to a request for an unknown path or with an unsupported method."""
    assert isinstance(error, HTTPException)
    response = error_response(HTTPStatus(error.status_code), error.detail)
    response.headers.update(error.headers or {})
    return response


def _record(error: VlmRunError) -> None:
    count_rejection(error)
    # On one line: a client's text must not look like another log line.
    logger.info("refused: %s", printable(str(error), _MAX_LOGGED))


def _response(error: VlmRunError) -> JSONResponse:
    return error_response(status_of(error), str(error), param=_parameter(error))


def error_response(status: HTTPStatus, message: str, *, param: str | None = None) -> JSONResponse:
    """A response in OpenAI's form: `{"error": {"message", "type", "param", "code"}}`."""
    kind = "".join(word.capitalize() for word in status.phrase.split())
    kind = kind if kind.endswith("Error") else f"{kind}Error"
    body = {"error": {"message": message, "type": kind, "param": param, "code": status.value}}
    return JSONResponse(body, status_code=status)


def status_of(error: VlmRunError) -> HTTPStatus:
    """The HTTP status: 400 if the request is at fault, 503 if the engine is, 500 if a plugin is."""
    if isinstance(error, RequestError):
        return HTTPStatus.BAD_REQUEST
    if isinstance(error, EngineError):
        return HTTPStatus.SERVICE_UNAVAILABLE
    return HTTPStatus.INTERNAL_SERVER_ERROR


def _parameter(error: VlmRunError) -> str | None:
    """The name of the field at fault, as in OpenAI's `param`."""
    if not isinstance(error, RequestError):
        return None
    if isinstance(error, MalformedError) and error.message_index is None:
        return error.field
    if error.message_index is not None:
        return f"messages[{error.message_index}]"
    if error.image_index is not None:
        return f"images[{error.image_index}]"
    return "messages"
