"""A process that runs tasks in turn: which of them it died of, and that none is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, wait
from multiprocessing import get_context
from threading import Event

import psutil
import pytest

from vlm_run.engine.worker_process import ProcessDied, TaskDropped, WorkerProcess

LARGER_THAN_A_PIPE = bytes(150_000)

_prepared: list[str] = []


def prepare(name: str) -> None:
    _prepared.append(name)


def prepared() -> list[str]:
    return _prepared


def nothing() -> None:
    pass


def die() -> None:
    os._exit(9)


def wait_for(path: str) -> None:
    """Return once another process writes to a named pipe."""
    with open(path) as pipe:
        pipe.read()


def start(warm_up: object = nothing) -> WorkerProcess:
    return WorkerProcess(get_context("forkserver"), prepare, ["first"], warm_up)  # type: ignore[arg-type]


@pytest.fixture
def worker() -> Iterator[WorkerProcess]:
    worker = start()
    yield worker
    worker.kill()


def outcome(worker: WorkerProcess, task: Future[object]) -> object:
    """A task's result, or the class of the error that says what became of it."""
    try:
        return asyncio.run(worker.result(task))
    except (ProcessDied, TaskDropped) as error:
        return type(error)


def test_the_initializer_runs_once_before_the_tasks(worker: WorkerProcess) -> None:
    assert [worker.submit(prepared).result() for _ in range(2)] == [["first"], ["first"]]


def test_an_error_of_a_task_reaches_its_caller_alone(worker: WorkerProcess) -> None:
    failing, fine = worker.submit(int, "x"), worker.submit(int, "5")
    with pytest.raises(ValueError, match="invalid literal"):
        asyncio.run(worker.result(failing))
    assert outcome(worker, fine) == 5


def test_the_task_that_ended_the_process_is_told_from_those_after_it(worker: WorkerProcess) -> None:
    tasks = [worker.submit(int, "1"), worker.submit(die), worker.submit(int, "3"), worker.submit(int, "4")]
    assert [outcome(worker, task) for task in tasks] == [1, ProcessDied, TaskDropped, TaskDropped]
    with pytest.raises(TaskDropped):
        worker.submit(int, "5")


def test_a_process_that_dies_while_it_warms_up_dies_of_every_task() -> None:
    worker = start(die)
    assert outcome(worker, worker.submit(int, "1")) is ProcessDied


@pytest.mark.parametrize("killed_after", range(0, 30, 6))
def test_a_kill_at_any_time_loses_no_task(worker: WorkerProcess, killed_after: int) -> None:
    pid = worker.submit(os.getpid).result()
    tasks = [worker.submit(len, LARGER_THAN_A_PIPE) for _ in range(30)]
    tasks[killed_after].add_done_callback(lambda _: os.kill(pid, signal.SIGKILL))
    assert not wait(tasks, timeout=60).not_done
    outcomes = [outcome(worker, task) for task in tasks]
    done = outcomes.count(len(LARGER_THAN_A_PIPE))
    assert done > killed_after
    assert outcomes[done:] == [ProcessDied, *[TaskDropped] * 29][: 30 - done]


def test_a_cancelled_caller_drops_a_task_that_has_not_begun(worker: WorkerProcess, tmp_path: str) -> None:
    pipe = os.path.join(tmp_path, "pipe")
    os.mkfifo(pipe)
    running = worker.submit(wait_for, pipe)
    # The executor hands the process one task ahead, which counts as begun.
    ahead, waiting = worker.submit(int, "1"), worker.submit(int, "2")

    async def cancel() -> None:
        caller = asyncio.ensure_future(worker.result(waiting))
        await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller

    asyncio.run(cancel())
    assert waiting.cancelled()
    with open(pipe, "w"):
        pass
    assert running.result() is None
    assert ahead.result() == 1


def test_killing_it_ends_what_runs(worker: WorkerProcess, tmp_path: str) -> None:
    pipe = os.path.join(tmp_path, "pipe")
    os.mkfifo(pipe)
    pid = worker.submit(os.getpid).result()
    running = worker.submit(wait_for, pipe)
    worker.kill()
    assert outcome(worker, running) is ProcessDied
    assert not psutil.pid_exists(pid)


def test_ctrl_c_does_not_end_it(worker: WorkerProcess) -> None:
    os.kill(worker.submit(os.getpid).result(), signal.SIGINT)
    assert worker.submit(int, "1").result() == 1


def test_it_ends_with_the_process_that_started_it() -> None:
    program = (
        "import os\nfrom multiprocessing import get_context\n"
        "from vlm_run.engine.worker_process import WorkerProcess\n"
        "if __name__ == '__main__':\n"
        "    worker = WorkerProcess(get_context('forkserver'), print, [], print)\n"
        "    print(worker.submit(os.getpid).result(), flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    output = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=False).stdout
    pid = int(output.split()[-1])
    ended = Event()
    with_it = psutil.Process(pid) if psutil.pid_exists(pid) else None
    if with_it is not None:
        psutil.wait_procs([with_it], callback=lambda _: ended.set())
        assert ended.is_set()
    assert not psutil.pid_exists(pid)
