"""Measure the resident memory of a batch: of the process that reads, feeds and writes.

    python benchmarks/batch_memory.py --rows 20000              # real vLLM answers each row
    python benchmarks/batch_memory.py --rows 1000000 --no-engine  # only reading and writing

`--no-engine` omits vLLM, so that a million rows can pass through the code of this project: rows are read,
parsed, answered at once with an empty answer, put in order, written and read again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import psutil

from vlm_run import Registry, Request, Response, Sampling
from vlm_run.batch.metrics import Metrics
from vlm_run.batch.results import ResultFile
from vlm_run.batch.row import RowFormat
from vlm_run.batch.run import Answering, Progress, run_batch, summarize, unfinished_rows
from vlm_run.batch.sources import open_dataset

POINTS = 10


class NoEngine:
    """Answers every request at once, with an empty response."""

    def as_completed(
        self, requests: Iterable[Request], sampling: Sampling, *, window: int | None = None
    ) -> Iterator[tuple[int, Response]]:
        """The number of each request, with an empty response."""
        for number, _ in enumerate(requests):
            yield number, Response()


def measure(engine: Answering, data_file: Path, out: Path, rows: int) -> None:
    """Run a batch and print this process's resident memory after every tenth of the rows."""
    me = psutil.Process()
    data = open_dataset(str(data_file))
    reading = RowFormat(data.directory)

    def report(progress: Progress) -> None:
        if progress.done % (rows // POINTS) == 0:
            print(f"{progress.done:>9,} rows  {me.memory_info().rss / 2**20:7.1f} MiB", flush=True)

    print(f"{0:>9,} rows  {me.memory_info().rss / 2**20:7.1f} MiB")
    started = time.perf_counter()
    with ResultFile(out, {}) as results:
        progress = run_batch(
            engine, unfinished_rows(data, reading, results), results, Sampling(max_tokens=4), report=report
        )
        print(f"{progress.rows_per_second:,.0f} rows/s")
        summary = summarize(results, progress, Metrics())
    print(
        f"summary   {me.memory_info().rss / 2**20:7.1f} MiB, {summary.rows:,} rows, {summary.failed:,} failed"
    )
    with ResultFile(out, {}) as results:
        kept = results.kept
    seconds = time.perf_counter() - started
    print(f"resumed   {me.memory_info().rss / 2**20:7.1f} MiB, {kept:,} rows kept; {seconds:.0f} s in all")


def write_data(directory: Path, rows: int) -> Path:
    """Questions about forty images, with the answers."""
    from vlm_run_demo.showcase import draw

    drawn = [draw(seed) for seed in range(40)]
    for number, (image, _) in enumerate(drawn):
        image.save(directory / f"{number}.png")
    with (directory / "data.jsonl").open("w") as file:
        for row in range(rows):
            turn = drawn[row % 40][1][row // 40 % 3]
            line = {"query": turn.question, "images": [f"{row % 40}.png"], "response": turn.answer}
            file.write(json.dumps(line) + "\n")
    return directory / "data.jsonl"


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--no-engine", action="store_true")
    options = parser.parse_args()
    running: AbstractContextManager[Answering] = (
        nullcontext(NoEngine()) if options.no_engine else Registry.load("demo-llava").engine()
    )
    with tempfile.TemporaryDirectory() as name, running as engine:
        directory = Path(name)
        measure(engine, write_data(directory, options.rows), directory / "out.jsonl", options.rows)


if __name__ == "__main__":
    main()
