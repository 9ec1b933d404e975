"""Middleware of Ray Serve's proxies: image affinity, and Ray Serve's own answers as errors.

Ray Serve calls `middlewares` in each proxy, by the variable that `ENVIRONMENT` sets.
"""

from __future__ import annotations

import json
import os
import re
from hashlib import blake2b
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ENVIRONMENT = {
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": f"{__name__}.middlewares",
    # A proxy that is not ready after 5 s is killed, which is too early beside engines that start.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
}
"""Variables that a proxy's process and the controller need; `serve.start` takes them as the controller's."""
RETRY_SECONDS = 5
# The part of a body in which an image is looked for, and the part of it that tells it from others: the
# first kilobytes of photographs may be metadata that they share.
_HEAD_BYTES = 64 * 1024
_IMAGE = re.compile(
    rb'(?:"images"\s*:\s*\[?\s*"|"(?:url|image_url|image|data)"\s*:\s*"|<img>)([^"<]{1,49152})'
)
_SERVES_OWN_PATHS = "/-/"
_SERVES_OWN_STATUS = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE})


def middlewares() -> list[Middleware]:
    """The middleware of each of Ray Serve's proxies, the innermost first."""
    return [Middleware(ImageAffinity), Middleware(RetryHints)]


class ImageAffinity:
    """Gives requests with the same first image the same session, and with it the same replica.

    There the image is in vLLM's cache of processed images, and its prompt in the prefix cache. A client's
    own session header stays.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._header = os.environ.get("RAY_SERVE_SESSION_ID_HEADER_KEY", "x-session-id")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or self._header in Headers(scope=scope):
            await self._app(scope, receive, send)
            return
        head = bytearray()
        read: list[Message] = []
        while len(head) < _HEAD_BYTES:
            read.append(message := await receive())
            head += message.get("body", b"")
            if not message.get("more_body", False):
                break
        if key := image_key(bytes(head)):
            MutableHeaders(scope=scope)[self._header] = key
        read.reverse()

        async def receive_again() -> Message:
            return read.pop() if read else await receive()

        await self._app(scope, receive_again, send)


def image_key(head: bytes) -> str | None:
    """A key of the first image in the beginning of a request's body; None if there is none."""
    found = _IMAGE.search(head[:_HEAD_BYTES])
    return blake2b(found[1], digest_size=16).hexdigest() if found else None


class RetryHints:
    """Turns what Ray Serve answers itself into errors in OpenAI's shape, with `Retry-After`.

    Ray Serve answers 500 without a body where a replica dies during a request, 404 while none is
    there, and 503 where it has too many requests. Each of them is a 503 here: the request may be sent
    again. A stream that has begun ends with an error event.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(_SERVES_OWN_PATHS):
            await self._app(scope, receive, send)
            return
        started = ended = replaced = streams = False

        async def send_checked(message: Message) -> None:
            nonlocal started, ended, replaced, streams
            if replaced:
                return
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                kind = headers.get("content-type", "")
                replaced = message["status"] in _SERVES_OWN_STATUS and kind.startswith("text/plain")
                if replaced:
                    return
                started, streams = True, kind.startswith("text/event-stream")
                _keep_first(headers, "x-request-id")
            elif message["type"] == "http.response.body":
                ended = not message.get("more_body", False)
            await send(message)

        await self._app(scope, receive, send_checked)
        if not started:
            headers = {"Retry-After": str(RETRY_SECONDS)}
            answer = JSONResponse(_error(), HTTPStatus.SERVICE_UNAVAILABLE, headers)
            await answer(scope, receive, send)
        elif streams and not ended:
            event = f"data: {json.dumps(_error())}\n\n"
            await send({"type": "http.response.body", "body": event.encode(), "more_body": False})


def _error() -> dict[str, object]:
    message = f"the replica that had this request is gone, or none is there yet. Retry in {RETRY_SECONDS} s."
    return {
        "error": {
            "message": message,
            "type": "ServiceUnavailableError",
            "param": None,
            "code": HTTPStatus.SERVICE_UNAVAILABLE.value,
        }
    }


def _keep_first(headers: MutableHeaders, name: str) -> None:
    """Ray Serve adds its own request id behind that of the application."""
    if len(headers.getlist(name)) > 1:
        first = headers[name]
        del headers[name]
        headers[name] = first
