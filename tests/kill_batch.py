"""Kill batches at random moments and compare the result with an uninterrupted run.

    python tests/kill_batch.py --kills 200 --rows 2000

SIGKILL is sent to the process that reads the data, feeds the engine and writes the results. Real vLLM
answers in a process that outlives it, because starting vLLM takes longer than answering hundreds of rows;
the killed process connects to it over a socket. `--whole` adds kills of the whole command including vLLM,
as users run it. A kill does not truncate a line, because a line is one write, so now and then the last line
is truncated as in a power failure.

Lines must be byte-equal after sorting, except for timings.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path

from vlm_run import Engine, Registry
from vlm_run.request import Request, Sampling
from vlm_run.response import Response

MODEL = "demo-llava"
IMAGES = 50
CUT_LINE = 0.3
"""Probability that a kill is followed by a truncation."""
LINE_BYTES = 350
"""Approximate length of one result in bytes."""


@dataclass(frozen=True)
class Tally:
    """The outcome of the kills."""

    kills: int
    lost: int
    doubled: int
    differing: int


def write_data(directory: Path, rows: int) -> Path:
    """A dataset of questions with images, of which one in fifty is missing."""
    from vlm_run_demo.showcase import draw

    drawn = [draw(seed) for seed in range(IMAGES)]
    for number, (image, _) in enumerate(drawn):
        image.save(directory / f"{number}.png")
    with (directory / "data.jsonl").open("w") as file:
        for row in range(rows):
            image = row % IMAGES
            turn = drawn[image][1][row // IMAGES % 3]
            name = "missing" if row % 50 == 49 else image
            line = {
                "id": f"r{row}",
                "query": turn.question,
                "images": [f"{name}.png"],
                "response": turn.answer,
            }
            file.write(json.dumps(line) + "\n")
    return directory / "data.jsonl"


# In the killed process.


class DistantEngine:
    """An engine in another process, with the interface that a batch needs."""

    def __init__(self, address: str) -> None:
        self._connection = Client(address, "AF_UNIX")

    def as_completed(
        self, requests: Iterable[Request], sampling: Sampling, *, window: int | None = None
    ) -> Iterator[tuple[int, Response]]:
        """Like `Engine.as_completed`: takes a request whenever the engine accepts one."""
        self._connection.send((sampling, window))
        left = enumerate(requests)
        while True:
            kind, answer = self._connection.recv()
            if kind == "next":
                self._connection.send(next(left, None))
            elif kind == "answer":
                yield answer
            else:
                return


def run_victim(address: str, data_name: str, out: str, ordered: bool) -> None:
    """Run the batch as the command does."""
    from vlm_run.batch.results import ResultFile
    from vlm_run.batch.row import RowFormat
    from vlm_run.batch.run import describe_run, run_batch, unfinished_rows
    from vlm_run.batch.sources import open_dataset

    dataset = open_dataset(data_name)
    row_format = RowFormat(dataset.directory)
    run = describe_run(Registry.load(MODEL), dataset, row_format, Sampling(), {})
    with ResultFile(Path(out), run) as results:
        rows = unfinished_rows(dataset, row_format, results)
        run_batch(DistantEngine(address), rows, results, Sampling(), ordered=ordered)


# In the killing process.


@dataclass(frozen=True)
class End:
    """The end of a batch, which waits for the kill: a quick engine would be done before it."""

    reached: threading.Event = field(default_factory=threading.Event)
    allowed: threading.Event = field(default_factory=threading.Event)


def serve(engine: Engine, listener: Listener, end: End) -> None:
    """Let one process after another use the engine; a killed process makes room for the next."""
    while True:
        try:
            connection = listener.accept()
        except OSError:
            return
        threading.Thread(target=_serve_one, args=[engine, connection, end], daemon=True).start()


def _serve_one(engine: Engine, connection: Connection, end: End) -> None:
    def requests() -> Iterator[Request]:
        while True:
            connection.send(("next", None))
            item = connection.recv()
            if item is None:
                return
            yield item[1]

    with suppress(EOFError, OSError), connection:
        sampling, window = connection.recv()
        for answer in engine.as_completed(requests(), sampling, window=window):
            connection.send(("answer", answer))
        end.reached.set()
        end.allowed.wait()
        connection.send(("end", None))


def kill_again_and_again(
    engine: Engine,
    directory: Path,
    *,
    rows: int,
    kills: int,
    seed: int,
    whole: int = 0,
    unordered: bool = False,
) -> Tally:
    """Kill a batch the given number of times, let it finish, and compare."""
    rng = random.Random(seed)
    data = write_data(directory, rows)
    address = str(directory / "engine.sock")
    end = End()
    with Listener(address, "AF_UNIX", backlog=8) as listener:
        threading.Thread(target=serve, args=[engine, listener, end], daemon=True).start()
        end.allowed.set()
        expected = _undisturbed(address, data, directory / "expected.jsonl")
        out = directory / "killed.jsonl"
        if whole:
            _kill_whole(data, out, whole, rng)
        done = 0
        for number in range(kills):
            share = (rows - _lines(out)) // (kills - number)
            end.allowed.clear()
            end.reached.clear()
            done += _kill_once(address, data, out, share, rng, unordered, end)
            end.allowed.set()
        _finish(address, data, out, False)
    found = sorted(map(_without_timings, out.read_bytes().splitlines()))
    numbers = [json.loads(line)["row"] for line in found]
    return Tally(
        kills=done + whole,
        lost=len(set(range(rows)) - set(numbers)),
        doubled=len(numbers) - len(set(numbers)),
        differing=len(set(found) ^ set(expected)),
    )


def _undisturbed(address: str, data: Path, out: Path) -> list[bytes]:
    _finish(address, data, out, False)
    return sorted(map(_without_timings, out.read_bytes().splitlines()))


def _kill_once(
    address: str, data: Path, out: Path, share: int, rng: random.Random, unordered: bool, end: End
) -> bool:
    """Kill after up to `share` more lines, at a random moment; False if the batch failed before that."""
    target = _size(out) + rng.uniform(0, share) * LINE_BYTES
    victim = _victim(address, data, out, unordered)
    while victim.poll() is None and _size(out) < target and not end.reached.is_set():
        time.sleep(0.002)
    time.sleep(rng.uniform(0, 0.05))
    victim.kill()
    killed = victim.wait() == -signal.SIGKILL
    _cut_last_line(out, rng)
    return killed


def _kill_whole(data: Path, out: Path, times: int, rng: random.Random) -> None:
    command = Path(sys.executable).with_name("vlm-run")
    for _ in range(times):
        began = _size(out)
        victim = subprocess.Popen(
            [command, "infer", MODEL, "--val_dataset", data, "--result-path", out],
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 180
        while victim.poll() is None and _size(out) <= began and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 1))
        with suppress(ProcessLookupError):
            os.killpg(victim.pid, signal.SIGKILL)
        victim.wait()
        _cut_last_line(out, rng)


def _cut_last_line(out: Path, rng: random.Random) -> None:
    if not _size(out) or rng.random() > CUT_LINE:
        return
    content = out.read_bytes()
    last = content.rfind(b"\n", 0, -1) + 1
    os.truncate(out, rng.randrange(last, len(content)))


def _finish(address: str, data: Path, out: Path, unordered: bool) -> None:
    victim = _victim(address, data, out, unordered)
    if victim.wait() != 0:
        raise SystemExit(f"the batch failed with {victim.returncode}")


def _victim(address: str, data: Path, out: Path, unordered: bool) -> subprocess.Popen[bytes]:
    words = ["--victim", address, str(data), str(out), *(["--unordered"] if unordered else [])]
    return subprocess.Popen([sys.executable, __file__, *words])


def _without_timings(line: bytes) -> bytes:
    fields = json.loads(line)
    fields.pop("timings", None)
    return json.dumps(fields).encode()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def main() -> None:
    """Kill as often as requested; exit code 1 if a row was lost, duplicated or changed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--whole", type=int, default=2, help="kills of the whole command, vLLM included")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--unordered", action="store_true")
    parser.add_argument("--victim", nargs=3, metavar=("ADDRESS", "DATA", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.victim:
        run_victim(*options.victim, ordered=not options.unordered)
        return
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as directory, Registry.load(MODEL).engine() as engine:
        tally = kill_again_and_again(
            engine,
            Path(directory),
            rows=options.rows,
            kills=options.kills,
            seed=options.seed,
            whole=options.whole,
            unordered=options.unordered,
        )
    print(f"{tally} of {options.rows} rows, in {time.perf_counter() - started:.0f} s")
    sys.exit(any((tally.lost, tally.doubled, tally.differing)))


if __name__ == "__main__":
    main()
