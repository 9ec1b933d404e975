"""Kill replicas of a batch on Ray, and its driver, at random moments, and compare with an uninterrupted run.

    python tests/kill_replicas.py --rows 2000 --kills 40 --driver-kills 10

SIGKILL is sent to a random replica whenever the result file has grown by a random number of lines, and now
and then to the driver, after which the same batch is started again. With `--rule` the replicas answer by a
rule and start in a second: that tests which row goes where over many deaths, not vLLM.

Lines must be byte-equal after sorting, except for timings.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from kill_batch import LINE_BYTES, MODEL, write_data
from ray.cluster_utils import Cluster

from vlm_run import Registry
from vlm_run.batch.results import ResultFile
from vlm_run.batch.row import RowFormat
from vlm_run.batch.run import Answering, describe_run, run_batch, unfinished_rows
from vlm_run.batch.sources import open_dataset
from vlm_run.errors import MediaError
from vlm_run.ray.batch import started_replicas
from vlm_run.ray.cluster import joined
from vlm_run.ray.pool import Replicas
from vlm_run.request import Request, Sampling
from vlm_run.response import Response

REPLICAS = 2
CUT_LINE = 0.3
"""Probability that a kill of the driver is followed by a truncation, as in a power failure."""
PATIENCE_S = 300.0
"""A kill comes after this time even if the file has not grown: rows may wait for an older one.

It must be long enough for a replica to start, or the batch gives up."""


@dataclass(frozen=True)
class Rule:
    """Answers a question with its length, and fails where an image is missing."""

    capacity: int = 32

    def __call__(self) -> Rule:
        return self

    async def answer(self, request: Request, sampling: Sampling) -> Response:
        await asyncio.sleep(random.expovariate(4))
        for image in request.conversation.images:
            if not os.path.exists(str(image)):
                return Response(finish_reason="error", error=MediaError("there is no such image"))
        return Response(response=str(len(request.conversation.messages[-1].written)))

    def shutdown(self) -> None:
        """Nothing was started."""


# In the driver.


def run_driver(address: str, data: str, out: str, rule: bool) -> None:
    """Answer what is left of the batch, as the command does."""
    dataset = open_dataset(data)
    row_format = RowFormat(dataset.directory)
    adapter = Registry.load(MODEL)
    run = describe_run(adapter, dataset, row_format, Sampling(), {})
    with ResultFile(Path(out), run) as results, ExitStack() as running:
        engine: Answering
        if rule:
            running.enter_context(joined(address))
            engine = running.enter_context(Replicas(Rule(), REPLICAS))
        else:
            engine = running.enter_context(started_replicas(adapter, REPLICAS, address=address))
        rows = unfinished_rows(dataset, row_format, results, print)
        run_batch(engine, rows, results, Sampling())
        print(engine.status())


# In the process that kills.


@dataclass
class Batch:
    """A driver that is started again and again."""

    cluster: Cluster
    data: Path
    out: Path
    rule: bool

    def start(self) -> subprocess.Popen[bytes]:
        words = ["--driver", self.cluster.address, str(self.data), str(self.out), *["--rule"] * self.rule]
        return subprocess.Popen([sys.executable, __file__, *words])

    def replicas(self) -> list[psutil.Process]:
        raylet = psutil.Process(self.cluster.head_node.all_processes["raylet"][0].process.pid)
        found = []
        for process in raylet.children():
            with suppress(psutil.NoSuchProcess):
                if "ray::Replica" in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def lines(self) -> list[bytes]:
        """The results, without their timings."""
        lines = []
        for line in self.out.read_bytes().splitlines():
            fields = json.loads(line)
            fields.pop("timings", None)
            lines.append(json.dumps(fields).encode())
        return sorted(lines)


def kill_again_and_again(
    batch: Batch, rows: int, kills: int, driver_kills: int, seed: int
) -> tuple[int, int]:
    """Kill while the batch runs, and let it finish; how many replicas and drivers were killed."""
    rng = random.Random(seed)
    victims = ["replica"] * kills + ["driver"] * driver_kills
    rng.shuffle(victims)
    killed = {"replica": 0, "driver": 0}
    driver = batch.start()
    for number, victim in enumerate(victims):
        share = max(rows - size(batch.out) / LINE_BYTES, 0) / (len(victims) - number)
        target = size(batch.out) + max(1, rng.uniform(0, share / 2)) * LINE_BYTES
        deadline = time.monotonic() + PATIENCE_S
        while driver.poll() is None and size(batch.out) < target and time.monotonic() < deadline:
            time.sleep(0.005)
        while driver.poll() is None and not batch.replicas():
            time.sleep(0.01)
        if driver.poll() is not None:
            break
        if victim == "driver":
            driver.kill()
            killed["driver"] += driver.wait() == -signal.SIGKILL
            cut_last_line(batch.out, rng)
            driver = batch.start()
        elif alive := batch.replicas():
            with suppress(psutil.NoSuchProcess):
                rng.choice(alive).kill()
                killed["replica"] += 1
    if driver.wait() != 0:
        raise SystemExit(f"the batch failed with {driver.returncode}")
    return killed["replica"], killed["driver"]


def cut_last_line(out: Path, rng: random.Random) -> None:
    if not size(out) or rng.random() > CUT_LINE:
        return
    content = out.read_bytes()
    last = content.rfind(b"\n", 0, -1) + 1
    os.truncate(out, rng.randrange(last, len(content)))


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def main() -> None:
    """Kill as often as requested; exit code 1 if a row was lost, duplicated or changed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=40, help="of replicas")
    parser.add_argument("--driver-kills", type=int, default=10)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rule", action="store_true", help="replicas without vLLM")
    parser.add_argument("--driver", nargs=3, metavar=("ADDRESS", "DATA", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.driver:
        run_driver(*options.driver, rule=options.rule)
        return
    started = time.perf_counter()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as name:
        os.environ["RAY_TMPDIR"] = name
        head = {"num_cpus": 2, "object_store_memory": 80 * 1024**2, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            data = write_data(Path(name), options.rows)
            undisturbed = Batch(cluster, data, Path(name, "expected.jsonl"), options.rule)
            if undisturbed.start().wait() != 0:
                raise SystemExit("the undisturbed batch failed")
            batch = Batch(cluster, data, Path(name, "killed.jsonl"), options.rule)
            replicas, drivers = kill_again_and_again(
                batch, options.rows, options.kills, options.driver_kills, options.seed
            )
            found, expected = batch.lines(), undisturbed.lines()
        finally:
            cluster.shutdown()
    numbers = [json.loads(line)["row"] for line in found]
    lost = len(set(range(options.rows)) - set(numbers))
    doubled, differing = len(numbers) - len(set(numbers)), len(set(found) ^ set(expected))
    print(
        f"{replicas} replicas and {drivers} drivers killed, {options.rows} rows: {lost} lost, "
        f"{doubled} doubled, {differing} differing lines, in {time.perf_counter() - started:.0f} s"
    )
    sys.exit(any((lost, doubled, differing)))


if __name__ == "__main__":
    main()
