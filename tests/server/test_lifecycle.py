"""How a server ends: on SIGTERM when its work is done, and with an error when its engine dies."""

from __future__ import annotations

import json
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psutil
import pytest

from .conftest import MODEL, Server, StartServer, unique_picture

ANSWER_TOKENS = 300


def stream(server: Server, number: int) -> list[dict[str, Any]]:
    """The chunks of a long answer about a picture."""
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "What is in the picture?"}],
        "images": [unique_picture(number)[0]],
        "max_tokens": ANSWER_TOKENS,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    lines = []
    with (
        httpx.Client(timeout=120) as http,
        http.stream("POST", f"{server.url}/v1/chat/completions", json=body) as response,
    ):
        assert response.status_code == 200
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def running(server: Server) -> float:
    lines = server.http.get("/metrics").text.splitlines()
    return sum(
        float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("vllm:num_requests_running{")
    )


def test_sigterm_lets_running_requests_finish_and_refuses_new_ones(start_server: StartServer) -> None:
    server = start_server("--host", "0.0.0.0", "--allow-private-media")
    assert "WARNING: listening at 0.0.0.0 without --api-key" in server.log
    children = psutil.Process(server.process.pid).children(recursive=True)
    with ThreadPoolExecutor(8) as pool:
        streams = [pool.submit(stream, server, number) for number in range(8)]
        while running(server) < 8:
            time.sleep(0.02)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{server.url}/health", timeout=5)
        assert not all(answer.done() for answer in streams)
        for answer in streams:
            chunks = answer.result()
            assert chunks[-1]["usage"]["completion_tokens"] == ANSWER_TOKENS
            assert chunks[-2]["choices"][0]["finish_reason"] == "length"
    assert server.process.wait(60) == 0
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []


def test_a_dead_engine_shows_in_health_and_ends_the_server_with_an_error(start_server: StartServer) -> None:
    server = start_server()
    assert server.http.get("/health").status_code == 200
    children = psutil.Process(server.process.pid).children(recursive=True)
    (engine,) = [
        child
        for child in children
        if "EngineCore" in " ".join(child.cmdline()) or "EngineCore" in child.name()
    ]
    engine.kill()
    until = time.monotonic() + 20
    while (health := server.http.get("/health").status_code) == 200 and time.monotonic() < until:
        time.sleep(0.05)
    assert health == 503
    refused = server.chat("Who are you?")
    assert refused.status_code >= 500
    assert refused.json()["error"]["message"]
    assert server.process.wait(60) == 1
    assert "the vLLM engine has died" in server.log
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []


def test_an_address_that_is_taken_is_an_error_at_once(server: Server, start_server: StartServer) -> None:
    port = server.url.rpartition(":")[2]
    started = time.monotonic()
    with pytest.raises(AssertionError, match=r"cannot listen at 127\.0\.0\.1:"):
        start_server("--port", port)
    assert time.monotonic() - started < 40


def test_several_api_processes_share_an_address_and_end_together(start_server: StartServer) -> None:
    server = start_server("--port", free_port(), "--", "--api-server-count", "2")
    pictures = [unique_picture(number) for number in range(12)]
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda picture: server.ask(images=[picture[0]]), pictures))
    assert answers == [count for _, count in pictures]
    assert "message 1, image 1" in server.refusal(images=["x"])
    children = psutil.Process(server.process.pid).children(recursive=True)
    assert server.stop() == 0
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])
