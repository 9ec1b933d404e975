"""Batches on real vLLM: bad rows fail alone, order holds, memory does not hold the data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vlm_run import Box, Engine, Request, Response, Sampling
from vlm_run.batch import ResultFile, Row, open_dataset, run_batch
from vlm_run.batch.metrics import Metrics
from vlm_run.batch.row import RowFormat
from vlm_run.batch.run import Progress, result_line, summarize, unfinished_rows
from vlm_run.errors import RequestError
from vlm_run_demo.showcase import draw

IMAGE, TURNS = draw(7)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    IMAGE.save(tmp_path / "p.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "p.png").read_bytes()[:300])
    rows: list[dict[str, Any]] = [
        {"query": turn.question, "images": ["p.png"], "response": turn.answer} for turn in TURNS
    ]
    rows += [
        {"query": "Who are you?", "images": ["cut.png"]},
        {"query": "Who are you?", "images": ["http://127.0.0.1:9/p.png"]},
        {"messages": []},
        {"query": "Who are you?", "response": "I am a small demo model."},
    ]
    file = tmp_path / "d.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def run(engine: Engine, data: Path, out: Path, **how: Any) -> tuple[Progress, list[dict[str, Any]]]:
    found = open_dataset(str(data))
    reading = RowFormat(found.directory)
    retry_errors = how.pop("retry_errors", False)
    with ResultFile(out, {}, retry_errors=retry_errors) as results:
        progress = run_batch(engine, unfinished_rows(found, reading, results), results, Sampling(), **how)
    return progress, [json.loads(line) for line in out.read_text().splitlines()]


@pytest.mark.parametrize("ordered", [True, False])
def test_a_bad_row_costs_its_own_line(engine: Engine, data: Path, tmp_path: Path, ordered: bool) -> None:
    progress, lines = run(engine, data, tmp_path / "out.jsonl", ordered=ordered)
    if not ordered:
        lines.sort(key=lambda line: int(line["row"]))
    assert [line["row"] for line in lines] == list(range(len(TURNS) + 4))
    assert [line["response"] for line in lines[: len(TURNS)]] == [turn.answer for turn in TURNS]
    assert [line.get("error", {}).get("type") for line in lines[len(TURNS) :]] == [
        "MediaError",
        "MediaError",
        "ConversationError",
        None,
    ]
    assert (progress.done, progress.failed) == (len(TURNS) + 4, 3)
    assert lines[0]["usage"]["image_tokens"] > 0
    assert lines[0]["finish_reason"] == "stop"
    assert lines[0]["timings"]["seconds"] >= lines[0]["timings"]["first_token_seconds"] > 0


def test_a_failed_row_is_tried_again_and_goes_to_its_place(
    engine: Engine, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    run(engine, data, out)
    IMAGE.save(tmp_path / "cut.png")
    nothing, before = run(engine, data, out)
    assert nothing.done == 0
    again, after = run(engine, data, out, retry_errors=True)
    assert (again.done, again.failed) == (3, 2)
    assert [line["row"] for line in after] == [line["row"] for line in before]
    assert "error" in before[len(TURNS)]
    assert after[len(TURNS)]["response"]


def test_the_summary_is_of_the_whole_file(engine: Engine, data: Path, tmp_path: Path) -> None:
    found = open_dataset(str(data))
    with ResultFile(tmp_path / "out.jsonl", {}) as results:
        rows = unfinished_rows(found, RowFormat(found.directory), results)
        summary = summarize(results, run_batch(engine, rows, results, Sampling()), Metrics())
    assert (summary.rows, summary.failed, summary.kept) == (len(TURNS) + 4, 3, 0)
    assert summary.metrics == {"references": len(TURNS) + 1, "exact_match": 1.0}
    assert summary.completion_tokens > 0


def test_rows_are_read_no_faster_than_they_are_answered(engine: Engine, tmp_path: Path) -> None:
    read = 0

    def rows() -> Iterator[Row]:
        nonlocal read
        for number in range(3000):
            read += 1
            yield (
                Row(number, None, {}, request=None, error=RequestError("no"))
                if number % 2
                else text_row(number)
            )

    ahead: list[int] = []
    with ResultFile(tmp_path / "out.jsonl", {}) as results:
        run_batch(
            engine,
            rows(),
            results,
            Sampling(max_tokens=1),
            report=lambda progress: ahead.append(read - progress.done),
        )
        assert [line["row"] for line in results.lines()] == list(range(3000))
    at_once = engine._config.scheduler_config.max_num_seqs
    assert max(ahead) <= 2 * 2 * at_once + 1


def text_row(number: int, **sampling: Any) -> Row:
    own = {"sampling": sampling} if sampling else {}
    return Row(number, f"r{number}", {}, request=Request.parse({"query": "Hi", **own}))


def test_an_interrupt_keeps_what_waits_for_an_older_row(engine: Engine, tmp_path: Path) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.done == 3:
            raise KeyboardInterrupt

    many = {"type": "array", "items": {"type": "integer"}, "minItems": 100}
    rows = [text_row(0, json_schema=many, max_tokens=400), *map(text_row, range(1, 9))]
    out = tmp_path / "out.jsonl"
    with ResultFile(out, {}) as results, pytest.raises(KeyboardInterrupt):
        run_batch(engine, rows, results, Sampling(max_tokens=1), report=interrupt)
    with ResultFile(out, {}) as results:
        assert results.kept == 3
        assert not results.has(0)
        left = [row for row in rows if not results.has(row.number)]
        run_batch(engine, left, results, Sampling(max_tokens=1))
        assert [line["row"] for line in results.lines()] == list(range(9))


def test_several_answers_and_structured_ones(engine: Engine, tmp_path: Path) -> None:
    asked = {"query": "How many red circles are there?", "images": [IMAGE]}
    (several,) = engine.infer([asked], {"n": 3, "temperature": 1.5, "seed": 1})
    assert len(several.responses) == 3
    assert several.response == several.responses[0]
    (chosen,) = engine.infer([asked], {"choice": ("apple", "pear")})
    assert chosen.response in ("apple", "pear")
    schema = {"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"]}
    (structured,) = engine.infer([asked], {"json_schema": schema, "max_tokens": 200})
    if structured.finish_reason == "stop":
        assert isinstance(json.loads(structured.response)["count"], int)
    else:
        assert structured.response.startswith("{")


def test_a_row_has_the_boxes_of_its_answer_if_there_are_any() -> None:
    row = Row(0, None, {"query": "Where is the cat?"})
    line = result_line(row, Response("[1, 2, 3, 4]", boxes=(Box("cat", 20.0, 20.0, 60.5, 40.0),)))
    assert line["boxes"] == [
        {"label": "cat", "left": 20.0, "top": 20.0, "right": 60.5, "bottom": 40.0, "image_index": 0}
    ]
    assert "boxes" not in result_line(row, Response("There is none."))
