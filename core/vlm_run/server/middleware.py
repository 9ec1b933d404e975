"""Middleware for every endpoint: request ids, API keys, and the limit on the request body.

Plain ASGI, since Starlette's base class for middleware hides that a client has disconnected.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import uuid
from collections.abc import Sequence
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vlm_run.server.error_responses import error_response
from vlm_run.server.metrics import count_rejection
from vlm_run.server.request_logs import request_id

_HEADER = "x-request-id"
# Safe in log lines and in vLLM's own ids.
_VALID_ID = re.compile(r"[A-Za-z0-9._:/=+-]{1,128}")
# For monitoring, which has no key.
OPEN_PATHS = frozenset({"/health", "/ping", "/metrics", "/version", "/load"})


class RequestIds:
    """Gives each request an id: the client's `X-Request-Id` if it is valid, else a new one.

    The id is in the response's headers, in the `id` that vLLM puts in the response, and in every log
    line about the request.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = MutableHeaders(scope=scope)
        given = headers.get(_HEADER, "")
        own = given if _VALID_ID.fullmatch(given) else uuid.uuid4().hex
        headers[_HEADER] = own
        request_id.set(own)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[_HEADER] = own
            await send(message)

        await self._app(scope, receive, send_with_id)


class Keys:
    """Requires one of the API keys as a bearer token, except on `OPEN_PATHS` and `open_paths`."""

    def __init__(self, app: ASGIApp, keys: Sequence[str], open_paths: frozenset[str] = frozenset()) -> None:
        self._app = app
        self._keys = [_digest(key) for key in keys]
        self._open_paths = OPEN_PATHS | open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or self._is_open(scope) or self._is_known(scope):
            await self._app(scope, receive, send)
            return
        count_rejection("unauthorized")
        answer = error_response(
            HTTPStatus.UNAUTHORIZED,
            "the API key is missing or wrong. Send it as 'Authorization: Bearer KEY'.",
        )
        answer.headers["WWW-Authenticate"] = "Bearer"
        await answer(scope, receive, send)

    def _is_open(self, scope: Scope) -> bool:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        return path in self._open_paths or scope.get("method") == "OPTIONS"

    def _is_known(self, scope: Scope) -> bool:
        scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
        given = _digest(key.strip())
        # All keys are compared, each in constant time.
        known = [secrets.compare_digest(given, each) for each in self._keys]
        return scheme.lower() == "bearer" and any(known)


class BodyLimit:
    """Refuses a request body of more than `max_bytes`."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        stated = Headers(scope=scope).get("content-length", "")
        if stated.isdecimal() and int(stated) > self._max_bytes:
            await self._refusal()(scope, receive, send)
            return
        received = 0
        refused = False

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise _TooLarge
            return message

        async def send_limited(message: Message) -> None:
            # FastAPI turns the exception that stops its reading into a response of its own.
            nonlocal refused
            if received <= self._max_bytes:
                await send(message)
            elif not refused:
                refused = True
                await self._refusal()(scope, receive, send)

        await self._app(scope, receive_limited, send_limited)

    def _refusal(self) -> ASGIApp:
        count_rejection("body too large")
        return error_response(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"the request is larger than {self._max_bytes / 1024**2:g} MiB. Send smaller images, or URLs.",
        )


class _TooLarge(Exception):
    pass


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
