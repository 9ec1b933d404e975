"""Many clients, and clients that mean no good: none harms another, and nothing ends the server."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error

from .conftest import MODEL, QUESTION, ImageServer, Server, unique_image

BAD: list[dict[str, Any]] = [
    {"images": ["aGVsbG8gd29ybGQh" * 4]},
    {"images": [unique_image(1)[0]] * 3},
    {"images": [None]},
    {"content": "<image><image>Which?", "images": ["x"]},
]
CLIENTS = 64
MALFORMED = 1000


def test_64_clients_with_images_of_their_own_get_their_own_answers(server: Server) -> None:
    def ask(client: int) -> tuple[str, str]:
        encoded, count = unique_image(client)
        with httpx.Client(base_url=server.url, timeout=600) as http:
            body = {"model": MODEL, "temperature": 0, "stream": client % 3 == 0}
            form: dict[str, Any] = {"images": [encoded]}
            if client % 4 == 3:
                form = BAD[client // 4 % len(BAD)]
                count = "200" if form["images"] == [None] else "400"
            content = form.get("content", QUESTION)
            response = http.post(
                "/v1/chat/completions",
                json={**body, "messages": [{"role": "user", "content": content}], "images": form["images"]},
            )
        if client % 4 == 3:
            return str(response.status_code), count
        assert response.status_code == 200, response.text
        return text_of(response), count

    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(ask, range(CLIENTS)))
    assert [answer for answer, _ in answers] == [right for _, right in answers]


def text_of(response: httpx.Response) -> str:
    """The answer, streamed or whole."""
    if not response.headers["content-type"].startswith("text/event-stream"):
        whole: str = response.json()["choices"][0]["message"]["content"]
        return whole
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
    chunks = [json.loads(line) for line in lines if line != "[DONE]"]
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)


def test_a_thousand_malformed_requests_meet_no_server_error(server: Server) -> None:
    rng = random.Random(20261124)
    bodies = [malformed(rng) for _ in range(MALFORMED)]

    def send(body: bytes) -> int:
        return http.post(
            "/v1/chat/completions", content=body, headers={"Content-Type": "application/json"}
        ).status_code

    with httpx.Client(base_url=server.url, timeout=600) as http, ThreadPoolExecutor(16) as pool:
        codes = list(pool.map(send, bodies))
    assert [(code, body) for code, body in zip(codes, bodies, strict=True) if code >= 500] == []
    assert sum(400 <= code < 500 for code in codes) > 0.9 * MALFORMED
    encoded, count = unique_image(12345)
    assert server.ask(images=[encoded]) == count


JUNK: list[Any] = [
    None, True, -1, 0, 1e308, float("nan"), "", "x", "\x00", "\ud800", "<img>", "<image>", [], [None], [[]],
    {}, {"a": 1}, [1], "a" * 5000, {"url": 5}, "data:", "data:image/png;base64,", "data:,x", "file:///etc/passwd",
    "http://", "http://[::1", "https://127.0.0.1:1/x.png", "//x", "\u202e", {"role": "user"}, ["user"],
]  # fmt: skip


def malformed(rng: random.Random) -> bytes:
    """A request with something wrong at one or more places of its body."""
    part = {"type": "image_url", "image_url": {"url": rng.choice(JUNK)}}
    message: dict[str, Any] = {
        "role": rng.choice(["user", "user", "assistant", "system", "tool", rng.choice(JUNK)]),
        "content": rng.choice(
            [
                QUESTION,
                "<image>",
                f"<img>{rng.choice(JUNK)}</img>",
                [part],
                [rng.choice(JUNK)],
                rng.choice(JUNK),
            ]
        ),
    }
    body: dict[str, Any] = {
        "model": rng.choice([MODEL, MODEL, MODEL, rng.choice(JUNK)]),
        "messages": rng.choice([[message], [message], [message, message], rng.choice(JUNK)]),
        "images": rng.choice([[rng.choice(JUNK)], rng.choice(JUNK), [rng.choice(JUNK), None]]),
        "max_tokens": 1,
    }
    if rng.random() < 0.5:
        fields = [
            "temperature",
            "n",
            "stop",
            "stream",
            "seed",
            "logprobs",
            "top_p",
            "tools",
            "response_format",
            "min_pixels",
            "max_pixels",
        ]
        body[rng.choice(fields)] = rng.choice(JUNK)
    encoded = json.dumps(body).encode()
    if rng.random() < 0.2:
        cut = rng.randrange(len(encoded))
        encoded = encoded[:cut] + rng.choice([b"", b"\xff", b"}", b"\x00" * 10]) + encoded[cut + 1 :]
    return encoded


def chat_schema(server: Server) -> Any:
    """The server's schema, the chat request cut to the fields that vlm-run adds or reads itself."""
    whole = server.http.get("/openapi.json").json()
    request = whole["components"]["schemas"]["ChatRequest"]
    mine = ("model", "messages", "images", "min_pixels", "max_pixels", "stream")
    request["properties"] = {name: request["properties"][name] for name in mine}
    request["properties"]["max_tokens"] = {"type": "integer", "minimum": 1, "maximum": 2}
    request["required"] = ["messages", "max_tokens"]
    schema = schemathesis.openapi.from_dict(whole)
    schema.config.update(base_url=server.url)
    return schema


@pytest.mark.parametrize(("path", "method"), [("/v1/chat/completions", "POST"), ("/v1/adapter", "GET")])
def test_what_the_schema_allows_meets_no_server_error(server: Server, path: str, method: str) -> None:
    @given(case=chat_schema(server)[path][method].as_strategy())
    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    def check(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=[not_a_server_error])

    check()


LONG = {
    "model": MODEL,
    "max_tokens": 1900,
    "ignore_eos": True,
    "messages": [{"role": "user", "content": "What can you do?"}],
}


def test_a_client_that_goes_away_in_mid_stream_frees_its_engine_work(server: Server) -> None:
    with (
        freed(server),
        server.http.stream("POST", "/v1/chat/completions", json={**LONG, "stream": True}) as response,
    ):
        next(response.iter_lines())
        wait_for_running(server, 1)


def test_a_client_that_goes_away_before_the_answer_frees_its_engine_work(server: Server) -> None:
    with freed(server), asking(server, LONG):
        wait_for_running(server, 1)


def test_a_client_that_goes_away_stops_the_fetching_of_its_images(
    server: Server, image_server: ImageServer
) -> None:
    asked, left = threading.Event(), threading.Event()

    def hang(handler: BaseHTTPRequestHandler) -> None:
        asked.set()
        handler.connection.settimeout(15)
        if handler.connection.recv(1) == b"":
            left.set()

    image_server.answers["/slow"] = hang
    with asking(server, {**LONG, "images": [image_server.url("/slow")]}):
        assert asked.wait(10)
        assert not left.is_set()
    assert left.wait(5)


@contextmanager
def asking(server: Server, body: dict[str, Any]) -> Iterator[None]:
    """A client that has asked and goes away at the end of the block."""
    content = json.dumps(body).encode()
    host, port = server.url.removeprefix("http://").split(":")
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + content)
        yield


@contextmanager
def freed(server: Server) -> Iterator[None]:
    """Check that what is begun in the block and left there is not finished after it."""
    before = server.metric("vllm:generation_tokens_total{")
    yield
    wait_for_running(server, 0)
    time.sleep(0.5)
    assert server.metric("vllm:generation_tokens_total{") - before < 0.9 * 1900


def wait_for_running(server: Server, count: int) -> None:
    until = time.monotonic() + 120
    while server.metric("vllm:num_requests_running{") != count:
        assert time.monotonic() < until
        time.sleep(0.02)
