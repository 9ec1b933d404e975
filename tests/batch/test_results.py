"""The result file: whatever a run leaves behind, the next one goes on from whole lines."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vlm_run.batch import ResultFile
from vlm_run.errors import VlmRunError

RUN: dict[str, Any] = {"model": {"model_type": "demo-llava"}, "sampling": {"temperature": 0.0, "stop": ()}}


def line(number: int, **more: Any) -> dict[str, Any]:
    return {"row": number, "response": f"answer\n{number} — ü", **more}


def rows(path: Path) -> list[int]:
    return [json.loads(text)["row"] for text in path.read_text().splitlines()]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "results" / "out.jsonl"


def write(out: Path, *numbers: int) -> None:
    with ResultFile(out, RUN) as results:
        for number in numbers:
            results.write(line(number))


def test_rows_that_are_done_are_known_to_the_next_run(out: Path) -> None:
    write(out, 0, 2, 5000)
    with ResultFile(out, RUN) as results:
        assert results.kept == 3
        assert [number for number in range(6000) if results.has(number)] == [0, 2, 5000]
        assert not results.has(10**9)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 400), tail=st.binary(max_size=3))
def test_a_file_cut_anywhere_is_gone_on_with(tmp_path: Path, cut: int, tail: bytes) -> None:
    out = tmp_path / "cut.jsonl"
    out.unlink(missing_ok=True)
    write(out, *range(7))
    whole = out.read_bytes()
    torn = whole[:cut] + (tail.replace(b"\n", b"") if cut < len(whole) else b"")
    out.write_bytes(torn)
    with ResultFile(out, RUN) as results:
        for number in range(7):
            if not results.has(number):
                results.write(line(number))
    assert out.read_bytes() == whole


def test_damage_in_the_middle_is_refused_with_its_place(out: Path) -> None:
    write(out, 0, 1, 2)
    content = out.read_bytes()
    second = content.index(b"\n") + 1
    out.write_bytes(content[:second] + b"#" + content[second + 1 :])
    with pytest.raises(VlmRunError, match=f"damaged at byte {second}"):
        ResultFile(out, RUN)


def test_another_run_is_refused_and_told_what_differs(out: Path) -> None:
    write(out, 0)
    other = {**RUN, "sampling": {"temperature": 0.7, "stop": ()}}
    with pytest.raises(VlmRunError, match=r"sampling\.temperature was 0\.0, is 0\.7"):
        ResultFile(out, other)
    assert rows(out) == [0]


def test_another_run_may_begin_where_no_row_is_done(out: Path) -> None:
    write(out)
    with ResultFile(out, {"model": "another"}) as results:
        results.write(line(0))
    with pytest.raises(VlmRunError, match="model was"):
        ResultFile(out, RUN)


def test_a_file_that_is_no_result_file_is_left_alone(out: Path) -> None:
    out.parent.mkdir()
    out.write_text("dear diary\n")
    with pytest.raises(VlmRunError, match=r"without out\.jsonl\.run\.json"):
        ResultFile(out, RUN)
    assert out.read_text() == "dear diary\n"


def test_a_torn_description_is_written_anew_where_no_row_is_done(out: Path) -> None:
    write(out)
    description = out.with_name("out.jsonl.run.json")
    description.write_bytes(description.read_bytes()[:10])
    write(out, 0)
    write(out, 1)
    assert rows(out) == [0, 1]


def test_one_process_at_a_time(out: Path) -> None:
    with ResultFile(out, RUN), pytest.raises(VlmRunError, match="another process is writing"):
        ResultFile(out, RUN)
    write(out, 0)


def test_no_row_is_written_twice(out: Path) -> None:
    with ResultFile(out, RUN) as results:
        results.write(line(3))
        with pytest.raises(VlmRunError, match="row 3"):
            results.write(line(3))


def test_failed_rows_are_done_until_they_are_to_be_retried(out: Path) -> None:
    with ResultFile(out, RUN) as results:
        for number in range(4):
            results.write(line(number, **({"error": {"message": "no"}} if number % 2 else {})))
    with ResultFile(out, RUN) as results:
        assert results.kept == 4
    with ResultFile(out, RUN, retry_errors=True) as results:
        assert results.kept == 2
        assert rows(out) == [0, 2]
        results.write(line(3))
        results.write(line(1))
        results.put_in_order()
        results.write(line(4))  # to the file that took the old one's place
    assert rows(out) == [0, 1, 2, 3, 4]


@given(st.permutations(range(30)))
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lines_are_put_in_order(tmp_path: Path, numbers: list[int]) -> None:
    out = tmp_path / "order.jsonl"
    out.unlink(missing_ok=True)
    with ResultFile(out, RUN) as results:
        for number in numbers:
            results.write(line(number))
        before = sorted(out.read_bytes().splitlines())
        results.put_in_order()
    assert rows(out) == list(range(30))
    assert sorted(out.read_bytes().splitlines()) == before


def test_text_that_is_no_unicode_is_escaped(out: Path) -> None:
    with ResultFile(out, RUN) as results:
        results.write({"row": 0, "response": "half a pair: \ud83d"})
        results.write({"row": 1, "response": "line\u2028separator"})
    with ResultFile(out, RUN) as results:
        assert [found["response"] for found in results.lines()] == [
            "half a pair: \ud83d",
            "line\u2028separator",
        ]


def test_a_full_disk_is_an_error_that_keeps_what_is_done(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        """A file that takes half a line, as a disk does that runs full."""

        def __init__(self, file: Any) -> None:
            self._file = file
            self._left = 60

        def write(self, content: memoryview) -> int:
            if not self._left:
                raise OSError(28, "No space left on device")
            taken = self._file.write(content[: self._left])
            self._left -= taken
            return int(taken)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

    with ResultFile(out, RUN) as results:
        results.write(line(0))
        results._file = Full(results._file)  # type: ignore[assignment]
        results.write(line(1))
        with pytest.raises(VlmRunError, match="No space left on device"):
            results.write(line(2))
    with ResultFile(out, RUN) as results:
        assert results.kept == 2
        results.write(line(2))
    assert rows(out) == [0, 1, 2]


def test_lines_that_cannot_be_synced_are_an_error_at_the_end(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(handle: int) -> None:
        raise OSError(5, "Input/output error")

    results = ResultFile(out, RUN)
    monkeypatch.setattr("os.fsync", fail)
    results.write(line(0))
    with pytest.raises(VlmRunError, match="Input/output error"):
        results.close()


def test_a_million_rows_are_known_in_little_memory(out: Path) -> None:
    with ResultFile(out, RUN) as results:
        numbers = random.Random(1).sample(range(1_000_000), 1000)
        for number in numbers:
            results.write(line(number))
        assert all(map(results.has, numbers))
        assert len(results._done) < 3_000_000
