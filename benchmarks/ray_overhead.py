"""What one replica through Ray costs, against the same without Ray, in turns in one run.

    python benchmarks/ray_overhead.py batch --rows 300 --rounds 5
    python benchmarks/ray_overhead.py serve --requests 100

`batch`: rows per second of one engine as a Ray actor, and of one in this process. `serve`: time to the first
streamed token, of one client, through Ray Serve and from `vlm-run serve`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx

from vlm_run import Registry
from vlm_run.batch.run import Answering
from vlm_run.ray.batch import started_replicas
from vlm_run.request import Request, Sampling
from vlm_run_demo.showcase import draw

MODEL = "demo-llava"
IMAGES = 50


def compare_batch(rows: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as name, ExitStack() as running:
        requests = list(_requests(Path(name), rows))
        adapter = Registry.load(MODEL)
        engines: dict[str, Answering] = {
            "one engine": running.enter_context(adapter.engine()),
            "one replica": running.enter_context(started_replicas(adapter, 1)),
        }
        rates: dict[str, list[float]] = {kind: [] for kind in engines}
        for number in range(rounds + 1):
            for kind, engine in engines.items():
                started = time.perf_counter()
                answered = sum(1 for _ in engine.as_completed(requests, Sampling()))
                assert answered == rows
                if number:  # the first round warms up
                    rates[kind].append(rows / (time.perf_counter() - started))
        for kind, each in rates.items():
            print(f"{kind}: {', '.join(f'{rate:.1f}' for rate in each)} rows/s")
        ratios = [one / other for other, one in zip(*rates.values(), strict=True)]
        print(f"with Ray / without: median {statistics.median(ratios):.3f} of {len(ratios)} rounds")


def _requests(directory: Path, rows: int) -> Iterator[Request]:
    drawn = [draw(seed) for seed in range(IMAGES)]
    for number, (image, _) in enumerate(drawn):
        image.save(directory / f"{number}.png")
    for row in range(rows):
        question = drawn[row % IMAGES][1][row // IMAGES % 3].question
        yield Request.parse({"query": question, "images": [str(directory / f"{row % IMAGES}.png")]})


def compare_serve(requests: int) -> None:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.server.conftest import Server, unique_image

    with tempfile.TemporaryDirectory(prefix="s-") as name:
        servers = {"one server": Server(Path(name, "a"))}
        try:
            servers["one replica"] = Server(Path(name, "b"), "--replicas", "1", RAY_TMPDIR="/tmp")
            seconds: dict[str, list[float]] = {kind: [] for kind in servers}
            for number in range(requests):
                for kind, server in servers.items():
                    first = _first_token_seconds(server.http, unique_image(number)[0])
                    if number >= 5:  # the first ones warm up
                        seconds[kind].append(first)
        finally:
            for server in servers.values():
                server.end()
        for kind, each in seconds.items():
            print(f"{kind}: median {1000 * statistics.median(each):.1f} ms to the first token")
        added = [one - other for other, one in zip(*seconds.values(), strict=True)]
        print(f"Ray adds {1000 * statistics.median(added):.1f} ms, median of {len(added)} pairs")


def _first_token_seconds(http: httpx.Client, image: str) -> float:
    messages = [{"role": "user", "content": "How many red circles are there?"}]
    body = {"model": MODEL, "messages": messages, "images": [image], "stream": True, "max_tokens": 8}
    started = time.perf_counter()
    first = 0.0
    with http.stream("POST", "/v1/chat/completions", json=body) as response:
        for line in response.iter_lines():
            if not first and '"content":' in line and '"content":""' not in line:
                first = time.perf_counter() - started
    assert first
    return first


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=["batch", "serve"])
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=100)
    options = parser.parse_args()
    if options.what == "batch":
        compare_batch(options.rows, options.rounds)
    else:
        compare_serve(options.requests)


if __name__ == "__main__":
    main()
