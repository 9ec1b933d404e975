"""Kill replicas of `vlm-run serve --replicas` while clients ask, and check every answer.

    python tests/kill_serving.py --requests 2000 --clients 32 --interval 10

Real vLLM answers questions about images whose answers are known. First each image is asked about three times,
to count the hits of vLLM's image caches. Then a random replica gets SIGKILL every so many seconds: each
request must be answered correctly, or refused with 503 and `Retry-After`, after which the client asks again.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.server.conftest import MODEL, QUESTION, Server, unique_image

IMAGES = 40
MOST_TRIES = 200


def main() -> None:
    """Ask and kill as often as requested; exit code 1 if an answer was wrong or lost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--interval", type=float, default=10.0, help="seconds between kills")
    parser.add_argument("--replicas", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="s-") as directory:
        flags = ("--replicas", str(options.replicas))
        server = Server(Path(directory, "log"), *flags, RAY_TMPDIR="/tmp", RAY_USAGE_STATS_ENABLED="0")
        try:
            outcome = _ask_and_kill(server, options)
        finally:
            server.end()
    sys.exit(outcome)


def _ask_and_kill(server: Server, options: argparse.Namespace) -> int:
    tally: Counter[str] = Counter()
    lock, done = threading.Lock(), threading.Event()
    images = [unique_image(number) for number in range(IMAGES)]
    _show_affinity(server, images)

    def ask(number: int) -> None:
        image, count = images[number % IMAGES]
        body = {
            "model": MODEL,
            "temperature": 0,
            "messages": [{"role": "user", "content": QUESTION}],
            "images": [image],
        }
        for _ in range(MOST_TRIES):
            try:
                response = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=120)
            except httpx.TransportError as error:
                outcome = f"broken: {type(error).__name__}"
            else:
                outcome = _judge(response, count)
            with lock:
                tally[outcome] += 1
            if outcome != "refused":
                return
            time.sleep(1)
        with lock:
            tally["given up"] += 1

    def kill_now_and_then() -> None:
        while not done.wait(options.interval):
            alive = _replicas(server)
            if alive:
                random.choice(alive).kill()
                with lock:
                    tally["kills"] += 1

    killer = threading.Thread(target=kill_now_and_then)
    killer.start()
    started = time.perf_counter()
    with ThreadPoolExecutor(options.clients) as pool:
        list(pool.map(ask, range(options.requests)))
    done.set()
    killer.join()
    seconds = time.perf_counter() - started
    print(f"{options.requests} requests, {options.clients} clients, {seconds:.0f} s: {dict(tally)}")
    return int(tally["right"] != options.requests)


def _judge(response: httpx.Response, count: str) -> str:
    if response.status_code == 503 and response.headers.get("retry-after"):
        return "refused"
    if response.status_code != 200:
        return f"status {response.status_code}: {response.text[:200]}"
    text = response.json()["choices"][0]["message"]["content"].strip()
    return "right" if text == count else f"wrong: {text!r} in place of {count!r}"


def _show_affinity(server: Server, images: list[tuple[str, str]]) -> None:
    """Ask about each image three times while nothing is killed, and print the caches' hit rate."""
    owners = [{server.chat(images=[image]).headers["x-replica"] for _ in range(3)} for image, _ in images]
    hits, queries = {}, {}
    for _ in range(50):  # each answer is of one replica, by chance
        response = server.http.get("/metrics")
        replica = response.headers["x-replica"]
        for line in response.text.splitlines():
            if line.startswith("vlm_run:image_cache_hits_total"):
                hits[replica] = float(line.split()[-1])
            if line.startswith("vlm_run:image_cache_queries_total"):
                queries[replica] = float(line.split()[-1])
    single = sum(len(each) == 1 for each in owners)
    print(
        f"{len(images)} images asked three times: {single} answered by one replica each, "
        f"{len(hits)} replicas, {sum(hits.values()):.0f} cache hits of {sum(queries.values()):.0f} images"
    )


def _replicas(server: Server) -> list[psutil.Process]:
    family = psutil.Process(server.process.pid).children(recursive=True)
    found = []
    for process in family:
        try:
            if "ServeReplica" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


if __name__ == "__main__":
    main()
