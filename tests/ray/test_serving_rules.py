"""Ray Serve with vlm-run's proxies and router, around replicas that answer by a rule."""

from __future__ import annotations

import time
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Semaphore
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest

from . import rules

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster


def deploy() -> None:
    """Start two replicas, or replace those that run."""
    from ray import serve as ray_serve

    from vlm_run.ray import serve

    deployment = ray_serve.deployment(
        ray_serve.ingress()(rules.RuleServer),
        name="rule",
        num_replicas=2,
        ray_actor_options={"num_cpus": 0.5},
        **serve.deployment_options(at_once=32, shutdown_seconds=20),
    )
    ray_serve.run(deployment.bind(), name=serve.APPLICATION)


@pytest.fixture(scope="module")
def client(cluster: Cluster) -> Iterator[httpx.Client]:
    """A client of two replicas."""
    from ray import serve as ray_serve

    from vlm_run.ray import serve

    host, port = serve.start_proxies(Namespace(host="127.0.0.1", port=0, ssl_keyfile=None, ssl_certfile=None))
    deploy()
    with httpx.Client(base_url=f"http://{host}:{port}", timeout=600) as opened:
        yield opened
    ray_serve.shutdown()


def image_url(image: int) -> str:
    return f"https://example.org/{image}.png"


def ask(client: httpx.Client, image: int, **fields: object) -> httpx.Response:
    return client.post("/v1/chat/completions", json={"images": [image_url(image)], **fields})


def test_the_same_image_goes_to_the_same_replica(client: httpx.Client) -> None:
    chosen = [[ask(client, image).headers["x-replica"] for _ in range(3)] for image in range(12)]
    assert all(len(set(each)) == 1 for each in chosen)
    assert len({each[0] for each in chosen}) == 2


def test_redeploying_replaces_replicas_without_an_interruption(client: httpx.Client) -> None:
    before = {ask(client, image).json()["pid"] for image in range(12)}
    replaced = Event()

    def keep_asking(image: int) -> Counter[int]:
        answers: Counter[int] = Counter()
        # Quicker answers would leave the replicas that start no time on two cores.
        while not replaced.is_set():
            answers[ask(client, image, seconds=0.1).status_code] += 1
        return answers

    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(keep_asking, image) for image in range(3)]
        deploy()
        replaced.set()
        answers = sum((each.result() for each in asking), Counter())
    assert set(answers) == {200}
    assert before.isdisjoint(ask(client, image).json()["pid"] for image in range(12))


@contextmanager
def opening(file: Path) -> Iterator[None]:
    """Let the waiting requests go on at the end, also after a failure."""
    try:
        yield
    finally:
        file.touch()


def test_requests_of_a_killed_replica_are_503_and_its_streams_end_with_an_error(
    client: httpx.Client, tmp_path: Path
) -> None:
    owners = {image: ask(client, image).json()["pid"] for image in range(8)}
    victim = owners[0]
    begun = Semaphore(0)

    def read_stream(image: int) -> str:
        body = {"images": [image_url(image)], "wait": str(tmp_path), "stream": True}
        with client.stream("POST", "/v1/chat/completions", json=body) as response:
            chunks = response.iter_text()
            first = next(chunks)
            begun.release()
            return first + "".join(chunks)

    with ThreadPoolExecutor(2 * len(owners)) as pool, opening(tmp_path / "open"):
        whole = {image: pool.submit(ask, client, image, wait=str(tmp_path)) for image in owners}
        streams = {image: pool.submit(read_stream, image) for image in owners}
        for _ in owners:
            assert begun.acquire(timeout=600)  # a replica that dies before its stream begins gives a 503
        while len(list(tmp_path.iterdir())) < 2 * len(owners):
            time.sleep(0.01)
        psutil.Process(victim).kill()
        for image, pid in owners.items():
            if pid == victim:
                answer = whole[image].result()
                assert answer.status_code == 503
                assert answer.headers["retry-after"] == "5"
                assert answer.json()["error"]["type"] == "ServiceUnavailableError"
                assert "ServiceUnavailableError" in streams[image].result().splitlines()[2]
    for image, pid in owners.items():
        if pid != victim:
            assert whole[image].result().json() == {"pid": pid}
            assert streams[image].result() == "data: {}\n\ndata: [DONE]\n\n"
    assert ask(client, 0).status_code == 200
