"""Sends rows to an engine and writes its answers, in the order of the rows or as they finish."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from vlm_run.batch.metrics import Metrics
from vlm_run.batch.results import ResultFile
from vlm_run.batch.row import Row, RowFormat, read_row
from vlm_run.batch.unused_columns import UnusedColumns
from vlm_run.errors import EngineError, VlmRunError
from vlm_run.request import Request, Sampling
from vlm_run.response import Response

if TYPE_CHECKING:
    from vlm_run.adapter import Adapter
    from vlm_run.batch.sources import Dataset

# Maximum distance between the oldest unanswered row and the newest: answers in between wait in memory.
_WINDOW = 4096
# Engine options that change answers; the others change throughput only.
_ANSWER_OPTIONS = (
    *("dtype", "quantization", "max_model_len", "mm_processor_kwargs", "limit_mm_per_prompt"),
    *("hf_overrides", "revision", "tokenizer", "seed", "trust_remote_code", "reasoning_parser"),
    "lora",
)


class Answering(Protocol):
    """The part of an `Engine` that a batch needs."""

    def as_completed(
        self, requests: Iterable[Request], sampling: Sampling, *, window: int | None = None
    ) -> Iterator[tuple[int, Response]]:
        """Yield responses as they finish, each with the number of its request."""


@dataclass(slots=True)
class Progress:
    """The progress of a run, over the rows that it answers itself.

    Attributes:
        done: Number of rows with a result.
        failed: Number of these that have an error.
        prompt_tokens: Tokens of their prompts.
        completion_tokens: Tokens of their answers.
        started: When the run began, by `time.perf_counter`.
    """

    done: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    started: float = field(default_factory=time.perf_counter)

    def count(self, line: Mapping[str, Any]) -> None:
        """Count a row by its line in the result file."""
        self.done += 1
        if "error" in line:
            self.failed += 1
            return
        self.prompt_tokens += line["usage"]["prompt_tokens"]
        self.completion_tokens += line["usage"]["completion_tokens"]

    @property
    def seconds(self) -> float:
        """Seconds since the run began."""
        return time.perf_counter() - self.started

    @property
    def rows_per_second(self) -> float:
        """Rows per second, over the whole run."""
        return self.done / max(self.seconds, 1e-9)

    @property
    def tokens_per_second(self) -> float:
        """Answer tokens per second, over the whole run."""
        return self.completion_tokens / max(self.seconds, 1e-9)


@dataclass(frozen=True, slots=True)
class Summary:
    """The content of a result file at the end of a run.

    Attributes:
        rows: Number of rows in the file.
        failed: Number of rows with an error.
        kept: Number of rows that an earlier run had finished.
        seconds: Duration of this run, without the engine's start.
        rows_per_second: Throughput of this run, in rows.
        tokens_per_second: Throughput of this run, in answer tokens.
        prompt_tokens: Prompt tokens of all rows in the file.
        completion_tokens: Answer tokens of all rows in the file.
        metrics: Scores of all rows that have a reference.
    """

    rows: int
    failed: int
    kept: int
    seconds: float
    rows_per_second: float
    tokens_per_second: float
    prompt_tokens: int
    completion_tokens: int
    metrics: dict[str, float]


def describe_run(
    adapter: Adapter,
    dataset: Dataset,
    row_format: RowFormat,
    sampling: Sampling,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Describe everything that the answers depend on; a result file is only resumed if it is the same.

    Args:
        adapter: The model.
        dataset: The dataset.
        row_format: How its rows are read.
        sampling: Sampling parameters of rows that have none of their own.
        options: Engine options on top of the adapter's.
    """
    template = Path(adapter.spec.chat_template)
    kwargs = adapter.engine_kwargs(**options)
    return {
        "model": {
            "model_type": adapter.spec.model_type,
            "source": adapter.source,
            "weights": _weights(Path(adapter.source)),
            "chat_template": blake2b(template.read_bytes(), digest_size=16).hexdigest(),
            "options": {name: kwargs[name] for name in _ANSWER_OPTIONS if kwargs.get(name) is not None},
            **_describe_loras(options.get("loras") or {}),
            **({"tasks": dict(adapter.spec.tasks)} if adapter.spec.tasks else {}),
            **({"template_kwargs": dict(variables)} if (variables := adapter.spec.template_kwargs) else {}),
        },
        "data": {
            **dataset.identity,
            "mapping": dict(row_format.mapping or {}),
            "prompt": row_format.prompt,
            "system": row_format.system,
            **({} if row_format.task is None else {"task": row_format.task}),
        },
        "sampling": sampling.model_dump(mode="json"),
    }


def unfinished_rows(
    dataset: Dataset,
    row_format: RowFormat,
    results: ResultFile,
    note: Callable[[str], None] = lambda text: None,
) -> Iterator[Row]:
    """Read the rows that have no result yet.

    Args:
        dataset: The dataset.
        row_format: How its rows are read.
        results: The result file.
        note: Called once for each column that looks as if it should be used and is not.

    Raises:
        VlmRunError: The dataset cannot be read any further.
    """
    unused = UnusedColumns(row_format.mapping or {})
    number = -1
    try:
        for number, columns in dataset.rows():
            for text in unused.check(columns):
                note(text)
            if not results.has(number):
                yield read_row(number, columns, row_format)
    except VlmRunError:
        raise
    except Exception as error:  # whatever a library raises when a source breaks off
        raise VlmRunError(
            f"{dataset.name} cannot be read beyond row {number + 1}: {error}",
            hint="Finished rows are kept; run the same command again to resume.",
        ) from error


def run_batch(
    engine: Answering,
    rows: Iterable[Row],
    results: ResultFile,
    sampling: Sampling,
    *,
    ordered: bool = True,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Progress:
    """Answer rows, and write a line for each.

    A row that is malformed, or whose request fails, costs its own line only.

    Args:
        engine: The engine that answers.
        rows: The rows; they are read as the engine has room for them.
        results: The result file.
        sampling: Sampling parameters of rows that have none of their own.
        ordered: Whether lines are written in the order of the rows, or as the rows finish.
        report: Called after each row.

    Raises:
        EngineError: The engine has died; finished rows are kept.
        VlmRunError: The dataset cannot be read any further, or the result file cannot be written.
    """
    progress, lines = Progress(), _Lines(results, ordered)
    asked: dict[int, tuple[int, Row]] = {}

    def finish(position: int, row: Row, response: Response | None) -> None:
        line = result_line(row, response)
        lines.add(position, line)
        progress.count(line)
        report(progress)

    def requests() -> Iterator[Request]:
        number = 0
        for position, row in enumerate(rows):
            if row.request is None:
                finish(position, row, None)
                continue
            asked[number] = (position, row)
            number += 1
            yield row.request

    answers = engine.as_completed(requests(), sampling, window=_WINDOW if ordered else None)
    try:
        for number, response in answers:
            position, row = asked.pop(number)
            finish(position, row, response)
    except (KeyboardInterrupt, EngineError):
        lines.write_waiting()
        raise
    if ordered:
        results.put_in_order()
    return progress


class _Lines:
    """Writes lines as they come, or in the order of their rows: then those after an unfinished row wait."""

    def __init__(self, results: ResultFile, ordered: bool) -> None:
        self._results = results
        self._ordered = ordered
        self._waiting: dict[int, dict[str, Any]] = {}  # by the position of their rows
        self._next = 0

    def add(self, position: int, line: dict[str, Any]) -> None:
        """Write a line, and those that waited for it; or let it wait for an earlier one."""
        if not self._ordered:
            self._results.write(line)
            return
        self._waiting[position] = line
        while self._next in self._waiting:
            self._results.write(self._waiting.pop(self._next))
            self._next += 1

    def write_waiting(self) -> None:
        """Write the lines that wait, at the end of a run that breaks off; the run that resumes sorts them."""
        for position in sorted(self._waiting):
            self._results.write(self._waiting[position])


def result_line(row: Row, response: Response | None) -> dict[str, Any]:
    """Return the line of a row; `response` is None if the row is malformed."""
    line: dict[str, Any] = {"row": row.number, "id": row.id, **row.kept, "request": row.record}
    if row.reference is not None:
        line["reference"] = row.reference
    error = row.error if response is None else response.error
    if response is None or error is not None:
        line["finish_reason"] = "error"
        line["error"] = {"type": type(error).__name__, "message": str(error)}
        return line
    answer = response.to_dict()
    names = ("response", "responses", "boxes", "finish_reason", "usage")
    line |= {name: answer[name] for name in names if name in answer}
    line["timings"] = {name: answer[name] for name in ("seconds", "first_token_seconds")}
    return line


def summarize(results: ResultFile, progress: Progress, metrics: Metrics) -> Summary:
    """Summarize the whole result file, including the rows of earlier runs."""
    rows = failed = prompt_tokens = completion_tokens = 0
    seconds, rates = progress.seconds, (progress.rows_per_second, progress.tokens_per_second)
    for line in results.lines():
        rows += 1
        if "error" in line:
            failed += 1
            continue
        prompt_tokens += line["usage"]["prompt_tokens"]
        completion_tokens += line["usage"]["completion_tokens"]
        if "reference" in line:
            metrics.add(line["response"], line["reference"])
    return Summary(
        rows=rows,
        failed=failed,
        kept=results.kept,
        seconds=round(seconds, 3),
        rows_per_second=round(rates[0], 3),
        tokens_per_second=round(rates[1], 3),
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        metrics=metrics.scores(),
    )


def _describe_loras(paths: Mapping[str, Any]) -> dict[str, Any]:
    """Describe LoRA adapters by their files; nothing without any, as in result files of earlier versions."""
    if not paths:
        return {}
    return {"loras": {name: [str(path), _weights(Path(path).expanduser())] for name, path in paths.items()}}


def _weights(directory: Path) -> str | None:
    """Identify the files of a checkpoint directory; None for a repository on the hub."""
    if not os.path.isdir(directory):
        return None
    digest = blake2b(digest_size=16)
    for file in sorted(directory.iterdir()):
        status = file.stat()
        digest.update(f"{file.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
