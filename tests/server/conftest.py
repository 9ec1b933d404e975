"""A real server on real vLLM with the demo model, and images to ask it about."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from openai import OpenAI
from PIL import Image

from vlm_run_demo.drawing import COLOURS, Scene, Shape, paint

from ..media.conftest import Server as ImageServer

START_SECONDS = 600
LONG_ANSWER_TOKENS = 300
SEED_MODELS = ("llava1_6-vicuna-13b-instruct", "phi3-vision-128k-instruct")
MODEL = "demo-llava"
QUESTION = "How many red circles are there?"
_READY = re.compile(r"is served at ((?:http://|unix:)\S+)/v1")


def draw(red_circles: int) -> Image.Image:
    """An image with so many red circles and, up to four shapes, blue squares."""
    kinds = [("red", "circle")] * red_circles + [("blue", "square")] * (4 - red_circles)
    shapes = tuple(
        Shape(kind, colour, 24.0 + 36 * place, 64, 12.0, 0.0, COLOURS[colour])
        for place, (colour, kind) in enumerate(kinds)
    )
    return paint(Scene(160, 128, (190, 190, 190), 0.3, (0, 0), shapes))


def unique_image(seed: int) -> tuple[str, str]:
    """An image that no other seed gives, as base64, and the number of its red circles."""
    count = seed % 5
    image = draw(count)
    image.putpixel((0, 0), (seed % 256, seed // 256 % 256, 77))
    return base64_of(image), str(count)


def rest_of(lines: Iterator[str]) -> list[dict[str, Any]]:
    """The chunks of a streamed answer that are left."""
    *chunks, end = [line.removeprefix("data: ") for line in lines if line]
    assert end == "[DONE]"
    return [json.loads(chunk) for chunk in chunks]


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def base64_of(image: Image.Image) -> str:
    return base64.b64encode(png(image)).decode()


class Server:
    """`vlm-run serve`, or `vlm-run app`, in a process of its own."""

    def __init__(
        self,
        log: Path,
        *flags: str,
        command: str = "serve",
        prelude: str = "",
        model: str = MODEL,
        **env: str,
    ) -> None:
        self.log_file = log
        self.model = model
        python = [
            sys.executable,
            "-c",
            f"{prelude}\nfrom vlm_run.cli import main\nif __name__ == '__main__':\n    main()",
        ]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [*python, command, model, "--port", "0", *flags],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "VLLM_LOGGING_LEVEL": "INFO", **env},
            )
        self.url = self._wait()
        self.openai = OpenAI(api_key="EMPTY", base_url=f"{self.url}/v1", max_retries=0, timeout=600)
        self.http = httpx.Client(base_url=self.url, timeout=600)

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def _wait(self) -> str:
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self.process.poll() is None:
            if ready := _READY.search(self.log):
                return ready[1]
            time.sleep(0.1)
        self.end()
        raise AssertionError(f"the server did not start:\n{self.log[-4000:]}")

    def chat(self, content: Any = QUESTION, **fields: Any) -> httpx.Response:
        """The answer to one question, or to `messages`."""
        body = {"model": self.model, "temperature": 0, "messages": [{"role": "user", "content": content}]}
        return self.http.post("/v1/chat/completions", json={**body, **fields})

    def ask(self, content: Any = QUESTION, **fields: Any) -> str:
        """The text of the answer."""
        response = self.chat(content, **fields)
        assert response.status_code == 200, response.text
        text: str = response.json()["choices"][0]["message"]["content"]
        return text

    def refusal(self, content: Any = QUESTION, **fields: Any) -> str:
        """The message of a refused question, whose answer is shaped as OpenAI's."""
        response = self.chat(content, **fields)
        assert response.status_code == 400, response.text
        error = response.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["code"] == 400
        message: str = error["message"]
        return message

    def long_answer(self, **fields: Any) -> AbstractContextManager[httpx.Response]:
        """A streamed answer of `LONG_ANSWER_TOKENS` tokens, which ends with its usage."""
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": "What can you do?"}],
            "max_tokens": LONG_ANSWER_TOKENS,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        return self.http.stream("POST", "/v1/chat/completions", json={**body, **fields})

    def metric(self, name: str) -> float:
        """The sum of the metric's samples whose name and labels begin so."""
        lines = self.http.get("/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    def stop(self, seconds: float = 60) -> int:
        """The exit code after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def end(self) -> None:
        """End the process and all of its own, which would outlive it if it alone were killed."""
        if self.process.poll() is not None:
            return
        family = psutil.Process(self.process.pid).children(recursive=True)
        with suppress(subprocess.TimeoutExpired):
            self.stop(30)
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.kill()
        self.process.wait(30)


StartServer = Callable[..., Server]


@pytest.fixture(scope="session")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """A function that starts a server with flags; all are stopped at the end."""
    started: list[Server] = []

    def start(*flags: str, **options: str) -> Server:
        log = tmp_path_factory.mktemp("server") / "log"
        server = Server(log, *flags, **options)
        started.append(server)
        return server

    yield start
    for server in started:
        server.end()


@pytest.fixture(scope="session")
def opened_urls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the browser of the shared server's user, a script, notes the URLs that it is opened with."""
    return tmp_path_factory.mktemp("browser") / "opened"


@pytest.fixture(scope="session")
def server(start_server: StartServer, opened_urls: Path) -> Server:
    """The server that most tests share, with the chat page; it may fetch images from this machine."""
    script = opened_urls.with_name("browser")
    script.write_text(f'#!/bin/sh\necho "$1" >> {opened_urls}\n')
    script.chmod(0o755)
    names = [flag for name in (MODEL, *SEED_MODELS) for flag in ("--served-model-name", name)]
    tools = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes")
    allowed = ("--allow-private-media", "--allow-documents")
    flags = (*allowed, "--max_model_len", "2048", *names, "--", *tools)
    return start_server(*flags, command="app", BROWSER=str(script))


@pytest.fixture
def image_server() -> Iterator[ImageServer]:
    """A server of images on this machine."""
    server = ImageServer()
    yield server
    server.close()
