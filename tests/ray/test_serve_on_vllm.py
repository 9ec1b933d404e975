"""`vlm-run serve --replicas` on real vLLM.

Affinity, replacements and deaths of several replicas are in `test_serving_rules.py`, without vLLM, and in
`tests/kill_serving.py`, with it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import psutil
import pytest

from ..server.conftest import LONG_ANSWER_TOKENS, MODEL, Server, rest_of, unique_image

KEY = "secret"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One replica on a Ray cluster of its own; what several do is tested without vLLM."""
    directory = tmp_path_factory.mktemp("s")
    flags = ("--replicas", "1", "--api-key", KEY, "--max-request-mib", "1")
    running = Server(directory / "log", *flags, RAY_TMPDIR="/tmp", RAY_USAGE_STATS_ENABLED="0")
    running.http.headers["Authorization"] = f"Bearer {KEY}"
    yield running
    running.end()


def test_answers_stream_as_they_are_generated(server: Server) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "What can you do?"}], "stream": True}
    with server.http.stream(
        "POST", "/v1/chat/completions", json={**body, "max_tokens": 200, "ignore_eos": True}
    ) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        times = []
        for line in response.iter_lines():
            times += [time.monotonic()] * line.startswith("data: ")
    assert line == ""
    assert len(times) > 100
    assert times[0] < times[len(times) // 2] < times[-1]


def test_keys_errors_limits_and_endpoints_are_those_of_one_server(server: Server) -> None:
    image, count = unique_image(3)
    assert server.ask(images=[image]) == count
    refused = httpx.get(f"{server.url}/v1/models", timeout=30)
    assert refused.status_code == 401
    assert refused.json()["error"]["code"] == 401
    assert [model["id"] for model in server.http.get("/v1/models").json()["data"]] == [MODEL]
    assert "message 1, image 1" in server.refusal(images=["x"])
    large = server.chat(images=["A" * 2 * 1024**2])
    assert large.status_code == 413
    assert server.http.get("/v1/adapter").json()["model_type"] == MODEL
    assert server.http.get("/health").status_code == 200
    named = server.http.get("/health", headers={"X-Request-Id": "mine"})
    assert named.headers.get_list("x-request-id") == ["mine"]


def test_sigterm_lets_running_requests_finish(server: Server) -> None:
    family = psutil.Process(server.process.pid).children(recursive=True)
    with ExitStack() as open_streams:
        streams = [open_streams.enter_context(server.long_answer()) for _ in range(4)]
        answers = [response.iter_lines() for response in streams]
        # A request that has not reached the replica yet would rightly be refused.
        begun = [next(lines) for lines in answers]
        os.kill(server.process.pid, signal.SIGTERM)
        assert all(first.startswith("data: ") for first in begun)
        for lines in answers:
            assert rest_of(lines)[-1]["usage"]["completion_tokens"] == LONG_ANSWER_TOKENS
    assert server.process.wait(300) == 0
    _, alive = psutil.wait_procs(family, timeout=120)
    assert alive == []
