"""`vlm-run infer --val_dataset` as a user runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from vlm_run.batch.run import Progress
from vlm_run.cli import progress as progress_module
from vlm_run.cli.batch import default_result_path
from vlm_run_demo.showcase import draw

from .conftest import Run, run

VLM_RUN = str(Path(sys.executable).with_name("vlm-run"))
IMAGE, TURNS = draw(7)


def command(directory: Path, *words: str) -> list[str]:
    """As on ms-swift's page, and where the results go."""
    model = ["--model_type", "demo-llava", "--infer_backend", "vllm"]
    return ["infer", *model, "--result-path", str(directory / "out.jsonl"), *words]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("batch")
    IMAGE.save(directory / "p.png")
    rows: list[dict[str, Any]] = [
        {"text": turn.question, "images": ["p.png"], "response": turn.answer} for turn in TURNS
    ]
    rows.append({"text": "What?", "images": ["missing.png"]})
    (directory / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return directory


def test_a_failed_row_makes_the_exit_code_3_and_can_be_retried_until_it_is_0(
    run_on_engine: Run, directory: Path
) -> None:
    data = ["--val_dataset", f"{directory / 'd.jsonl'}#100", "--map", "text=query"]
    first = run_on_engine(*command(directory, *data, "--json", "--metric", "anls"))
    assert first.exit_code == 3, first.stderr
    summary = json.loads(first.stdout)
    assert (summary["rows"], summary["failed"]) == (len(TURNS) + 1, 1)
    assert summary["metrics"] == {"references": len(TURNS), "exact_match": 1.0, "anls": 1.0}

    again = run(*command(directory, *data))  # without an engine: every row has an answer
    assert again.returncode == 3
    assert f"1 failed ({len(TURNS) + 1} of them in an earlier run)" in again.stdout
    other = run(*command(directory, *data, "--temperature", "0.5"))
    assert other.returncode == 2
    assert "sampling.temperature was 0.0, is 0.5" in other.stderr

    IMAGE.save(directory / "missing.png")
    retried = run_on_engine(*command(directory, *data, "--retry-errors"))
    assert retried.exit_code == 0, retried.stderr
    assert f"{len(TURNS) + 1} rows answered, 0 failed" in retried.stdout
    lines = [json.loads(line) for line in (directory / "out.jsonl").read_text().splitlines()]
    assert [line["row"] for line in lines] == list(range(len(TURNS) + 1))


@pytest.mark.engine
def test_an_interrupt_keeps_what_is_done(tmp_path: Path) -> None:
    for seed in range(10):
        draw(seed)[0].save(tmp_path / f"{seed}.png")
    rows = 100_000  # which take an hour, so that the interrupt comes before the last
    question = "How many shapes are there?"
    lines = [json.dumps({"query": question, "images": [f"{seed}.png"]}) + "\n" for seed in range(10)]
    (tmp_path / "d.jsonl").write_text("".join(lines) * (rows // 10))
    running = subprocess.Popen(
        [VLM_RUN, *command(tmp_path, "--val_dataset", str(tmp_path / "d.jsonl"))],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    results = tmp_path / "out.jsonl"
    while not (results.exists() and results.stat().st_size):
        assert running.poll() is None
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGINT)  # to vLLM's processes too, as a terminal does
    try:
        _, errors = running.communicate(timeout=600)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
    assert running.returncode == 130
    assert "run the same command again to resume" in errors
    assert "Traceback" not in errors
    answers = [json.loads(line) for line in results.read_text().splitlines()]
    numbers = [answer["row"] for answer in answers]  # with gaps: what was answered and waited is kept too
    assert numbers == sorted(set(numbers))
    assert 0 < len(answers) < rows
    assert all(answer["response"].isdigit() for answer in answers)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--val_dataset", "missing.jsonl"], "there is no file missing.jsonl"),
        (["--val_dataset", "d.jsonl", "--map", "text=question"], "NAME is one of query"),
        (["--val_dataset", "d.jsonl", "--metric", "ruge"], "unknown metric 'ruge'"),
        (["--val_dataset", "d.jsonl", "--n", "2"], "set a temperature"),
        (["--val_dataset", "d.jsonl", "--json-schema", "missing.json"], "missing.json"),
        (["a question", "--val_dataset", "d.jsonl"], "--prompt"),
    ],
)
def test_a_mistake_is_told_before_the_engine_starts(words: list[str], says: str) -> None:
    done = run("infer", "demo-llava", *words)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Loading" not in done.stderr


def test_the_bar_says_how_far_and_how_fast_the_run_is_and_what_is_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # to rich, a terminal
    monkeypatch.setenv("COLUMNS", "120")
    with progress_module.show_progress(10) as report:
        for done in (2, 4):
            started = time.perf_counter() - done
            report(Progress(done=done, failed=1, completion_tokens=20 * done, started=started))
            time.sleep(0.05)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err).splitlines()[-1]
    assert re.search(r" 4/10 1 failed 1\.0 rows/s 20 tokens/s \d:\d\d:\d\d", shown), shown


def test_without_a_terminal_a_line_says_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress_module, "_LINE_INTERVAL_S", 0.0)
    with progress_module.show_progress(964) as report:
        report(Progress(done=4, failed=1, completion_tokens=80, started=time.perf_counter() - 4))
    assert capsys.readouterr().err == ("4 of 964 rows, 1 failed, 1.0 rows/s, 20 tokens/s, 16 min left\n")


def test_without_a_result_path_the_data_names_it() -> None:
    assert default_result_path("a/d.jsonl#100", "m-7b") == Path("d-100.m-7b.jsonl")
    assert default_result_path("user/set", "m-7b") == Path("set.m-7b.jsonl")
    assert default_result_path("../pictures/", "m-7b") == Path("pictures.m-7b.jsonl")
