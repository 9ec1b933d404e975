"""`vlm-run infer --val_dataset --replicas` on real vLLM.

What is sent where, and what happens at deaths, is in `test_pool.py` and `test_dispatch.py`, without vLLM.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from vlm_run import Engine
from vlm_run_demo.showcase import draw

VLM_RUN = str(Path(sys.executable).with_name("vlm-run"))
ROWS = 40


def test_two_replicas_one_of_them_killed_answer_as_one_engine(engine: Engine, tmp_path: Path) -> None:
    rows = []
    for number in range(ROWS):
        image, turns = draw(number % 10)
        image.save(tmp_path / f"{number % 10}.png")
        rows.append({"query": turns[number // 10 % len(turns)].question, "images": [f"{number % 10}.png"]})
    rows.append({"query": "What is this?", "images": ["missing.png"]})
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out.jsonl"
    words = ["--val_dataset", tmp_path / "data.jsonl", "--result-path", out, "--unordered"]
    # As the engine of the tests, whatever this machine's default is.
    with subprocess.Popen(
        [VLM_RUN, "infer", "demo-llava", *words, "--replicas", "2", "--engine", "dtype=float32"],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while process.poll() is None and not (out.exists() and out.stat().st_size):
            time.sleep(0.01)
        for replica in replica_processes(process.pid)[:1]:
            replica.kill()
        _, log = process.communicate(timeout=600)
    assert process.returncode == 3, log
    found = {line["row"]: line for line in map(json.loads, out.read_text().splitlines())}
    assert len(found) == len(rows)
    assert found.pop(ROWS)["error"]["type"] == "MediaError"
    requests = [{**row, "images": [str(tmp_path / name) for name in row["images"]]} for row in rows[:ROWS]]
    assert [found[row]["response"] for row in range(ROWS)] == [
        answer.response for answer in engine.infer(requests)
    ]


def replica_processes(driver: int) -> list[psutil.Process]:
    """The processes of the replicas on the cluster that a driver has started."""
    found = []
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(driver).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                found += [process] * ("ray::Replica" in " ".join(process.cmdline()))
    return found
