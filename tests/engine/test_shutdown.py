"""Engines end cleanly: no process is left behind, and a dead engine says so."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import psutil
import pytest

pytestmark = pytest.mark.engine

SCRIPT = """
import psutil
from vlm_run import Registry
from vlm_run.errors import EngineError

def main():
    me = psutil.Process()
    with Registry.load("demo-llava").engine() as engine:
        assert engine.infer(["Who are you?"])[0].response == "I am a small demo model."
        # Python's own resource tracker, which ends with this process, is none of the engine's.
        children = [
            child for child in me.children(recursive=True) if "resource_tracker" not in str(child.cmdline())
        ]
        assert children
        for child in children:
            child.kill()
        try:
            engine.infer(["Who are you?"])
        except EngineError as error:
            print("EngineError:", error)
    engine.shutdown()  # a second time
    try:
        engine.infer(["Who are you?"])
    except EngineError as error:
        print("EngineError:", error)
    _, alive = psutil.wait_procs(children, timeout=120)
    print("left:", [process.name() for process in alive])

if __name__ == "__main__":
    main()
"""


def test_a_dead_engine_says_so_and_no_process_outlives_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=600, check=False
    )
    said = [line for line in done.stdout.splitlines() if line.startswith(("EngineError: ", "left: "))]
    assert done.returncode == 0, done.stderr[-2000:]
    dead, shut_down, left = said
    assert "has died" in dead
    assert "shut down" in shut_down
    assert left == "left: []"


KILLED = """
import os, signal, sys
import psutil
from vlm_run import Registry

def main():
    engine = Registry.load("demo-llava").engine()
    children = psutil.Process().children(recursive=True)
    print("children:", *[child.pid for child in children], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    main()
"""


def test_no_process_outlives_a_kill_of_its_owner() -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("children: ")]
    pids = [int(pid) for pid in line.split()[1:]]
    assert pids
    deadline = time.monotonic() + 120
    while any(map(psutil.pid_exists, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [pid for pid in pids if psutil.pid_exists(pid)] == []
