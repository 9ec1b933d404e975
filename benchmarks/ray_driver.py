"""Rows per second that one driver of a batch on Ray can feed, with the model left out.

    python benchmarks/ray_driver.py --replicas 2 --rows 20000

Replicas answer every row at once with a fixed text, so that reading the dataset, sending rows, collecting
answers and writing the result file are the limit. Images are named by path and never opened.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from vlm_run import Registry
from vlm_run.batch.results import ResultFile
from vlm_run.batch.row import RowFormat
from vlm_run.batch.run import describe_run, run_batch, unfinished_rows
from vlm_run.batch.sources import open_dataset
from vlm_run.ray.cluster import Share, joined
from vlm_run.ray.pool import Replicas
from vlm_run.request import Request, Sampling
from vlm_run.response import Response


@dataclass(frozen=True)
class Immediate:
    """Answers at once."""

    capacity: int

    def __call__(self) -> Immediate:
        return self

    async def answer(self, request: Request, sampling: Sampling) -> Response:
        return Response(response="an answer of usual length, which says what is in the image")

    def shutdown(self) -> None:
        """Nothing was started."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--capacity", type=int, default=256, help="rows in flight per replica")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as name,
        joined(None, num_cpus=options.replicas, object_store_memory=80 * 1024**2),
        Replicas(Immediate(options.capacity), options.replicas, Share(cpus=1)) as replicas,
    ):
        data = Path(name, "data.jsonl")
        with data.open("w") as file:
            for row in range(options.rows):
                line = {"id": row, "query": "What is in the image?", "images": [f"images/{row}.jpg"]}
                file.write(json.dumps(line) + "\n")
        replicas.wait(options.replicas)
        dataset = open_dataset(str(data))
        row_format, adapter = RowFormat(dataset.directory), Registry.load("demo-llava")
        run = describe_run(adapter, dataset, row_format, Sampling(), {})
        process = psutil.Process()
        before = process.cpu_times()
        started = time.perf_counter()
        with ResultFile(Path(name, "out.jsonl"), run) as results:
            run_batch(replicas, unfinished_rows(dataset, row_format, results, print), results, Sampling())
        seconds = time.perf_counter() - started
        after = process.cpu_times()
        busy = after.user + after.system - before.user - before.system
        print(
            f"{options.rows:,} rows, {options.replicas} replicas: {options.rows / seconds:,.0f} rows/s; "
            f"the driver used {1e6 * busy / options.rows:,.0f} µs of CPU time per row",
        )


if __name__ == "__main__":
    main()
