"""In front of Ray Serve's proxies: equal images get one session, and Ray's own answers become errors."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vlm_run.ray.proxy import RETRY_SECONDS, ImageAffinity, RetryHints, image_key

PNG, JPEG = "data:image/png;base64,iVBOR" + "A" * 500, "data:image/jpeg;base64,/9j/" + "B" * 500


def parts(url: str) -> dict[str, Any]:
    image = {"type": "image_url", "image_url": {"url": url}}
    return {"messages": [{"role": "user", "content": [image, {"type": "text", "text": "What is this?"}]}]}


def in_text(url: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": f"<img>{url}</img>What is this?"}]}


def beside(url: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "What is this?"}], "images": [url]}


@pytest.mark.parametrize("body", [parts, in_text, beside])
def test_requests_have_a_key_by_their_first_image(body: Any) -> None:
    keys = [
        image_key(json.dumps(body(url)).encode()) for url in (PNG, PNG, JPEG, "https://example.org/a.png")
    ]
    assert keys[0] is not None
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_requests_without_an_image_have_no_key() -> None:
    assert image_key(b'{"messages": [{"role": "user", "content": "What is a \\"url\\"?"}]}') is None
    assert image_key(b"") is None


@given(st.binary(max_size=300))
def test_any_body_has_a_key_or_none(body: bytes) -> None:
    assert image_key(body) is None or len(image_key(body) or "") == 32


def call(app: ASGIApp, body: list[bytes], **headers: str) -> tuple[Scope, list[Message]]:
    """What an application behind the middleware was asked, and what came out in front of it."""
    scope: Scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    incoming = [
        {"type": "http.request", "body": each, "more_body": number < len(body) - 1}
        for number, each in enumerate(body)
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return incoming.pop(0) if incoming else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return scope, sent


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    body, more = b"", True
    while more:
        message = await receive()
        body += message["body"]
        more = message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": scope["headers"]})
    await send({"type": "http.response.body", "body": body})


def test_the_body_is_passed_on_as_it_came_and_the_session_is_in_the_headers() -> None:
    whole = json.dumps({**parts(PNG), "padding": "x" * 200_000}).encode()
    pieces = [whole[start : start + 10_000] for start in range(0, len(whole), 10_000)]
    scope, (start, body) = call(ImageAffinity(echo), pieces)
    assert body["body"] == whole
    assert dict(start["headers"])[b"x-session-id"].decode() == image_key(whole)
    assert (b"x-session-id" in dict(scope["headers"])) is True


def test_a_session_of_the_clients_own_stays() -> None:
    scope, _ = call(ImageAffinity(echo), [json.dumps(parts(PNG)).encode()], **{"x-session-id": "mine"})
    assert dict(scope["headers"])[b"x-session-id"] == b"mine"


def answering(*messages: Message) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


def start(status: int, kind: str) -> Message:
    return {"type": "http.response.start", "status": status, "headers": [(b"content-type", kind.encode())]}


@pytest.mark.parametrize(
    "messages",
    [
        (),  # the replica died
        (start(503, "text/plain"), {"type": "http.response.body", "body": b"too many requests"}),
        (start(404, "text/plain; charset=utf-8"), {"type": "http.response.body", "body": b"no route"}),
    ],
)
def test_what_ray_serve_refuses_is_a_503_with_a_time_to_retry_after(messages: tuple[Message, ...]) -> None:
    _, (begin, body) = call(RetryHints(answering(*messages)), [b"{}"])
    assert begin["status"] == 503
    assert dict(begin["headers"])[b"retry-after"] == str(RETRY_SECONDS).encode()
    assert set(json.loads(body["body"])["error"]) == {"message", "type", "param", "code"}


def test_a_stream_that_breaks_off_ends_with_an_error_event() -> None:
    messages = (
        start(200, "text/event-stream"),
        {"type": "http.response.body", "body": b'data: {"choices": []}\n\n', "more_body": True},
    )
    _, sent = call(RetryHints(answering(*messages)), [b"{}"])
    assert json.loads(sent[-1]["body"].removeprefix(b"data: "))["error"]["code"] == 503
    assert sent[-1]["more_body"] is False


def test_answers_of_the_application_pass_unchanged_but_for_a_second_request_id() -> None:
    begin = start(404, "application/json")
    begin["headers"] += [(b"x-request-id", b"ours"), (b"x-request-id", b"ray's")]
    _, sent = call(RetryHints(answering(begin, {"type": "http.response.body", "body": b"{}"})), [b"{}"])
    assert sent[0]["status"] == 404
    assert [value for name, value in sent[0]["headers"] if name == b"x-request-id"] == [b"ours"]
    assert sent[1]["body"] == b"{}"
