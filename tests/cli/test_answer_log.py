"""`--log` keeps what was asked and answered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vlm_run import Engine, Sampling
from vlm_run.cli.answer_log import AnswerLog
from vlm_run.cli.infer import answer_once
from vlm_run.cli.interactive import Session
from vlm_run.errors import RequestError, VlmRunError
from vlm_run_demo.showcase import draw

IMAGE, (TURN, *_) = draw(7)


def test_every_answer_is_kept_and_every_error(engine: Engine, tmp_path: Path) -> None:
    IMAGE.save(tmp_path / "p.png")
    images = [str(tmp_path / "p.png")]
    sampling = Sampling(max_tokens=8)
    log = AnswerLog(tmp_path / "log.jsonl", "demo-llava", sampling)
    for as_json in (False, True):
        answer_once(
            engine, {"query": TURN.question, "images": images, "system": None}, sampling, log, as_json
        )
    with pytest.raises(RequestError, match="half a character"):
        answer_once(engine, {"query": "\ud83d", "images": []}, sampling, log, False)
    session = Session(engine, sampling, None, AnswerLog(tmp_path / "log.jsonl", "demo-llava", sampling))
    session._add_media(images[0])
    session._answer(TURN.question)

    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["response"] for line in lines] == [TURN.answer, TURN.answer, "", TURN.answer]
    assert all(line["model_type"] == "demo-llava" and line["time"] for line in lines)
    assert lines[0]["request"] == {"query": TURN.question, "images": images}
    assert lines[0]["sampling"] == {"max_tokens": 8}
    assert lines[0]["usage"]["image_tokens"] > 0
    assert "half a character" in lines[2]["error"]["message"]
    assert lines[3]["request"] == {"query": f"<image>{TURN.question}", "images": images}


def test_a_file_that_cannot_be_written_is_told_before_the_engine_starts(tmp_path: Path) -> None:
    with pytest.raises(VlmRunError, match=r"--log .* cannot be written: Is a directory"):
        AnswerLog(tmp_path, "demo-llava", Sampling())
