"""Feeds an engine with rows and writes what it answers, in the rows' order or as it comes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from vlm_run.batch.columns import Reading, Row, read_row
from vlm_run.batch.metrics import Metrics
from vlm_run.batch.results import ResultFile
from vlm_run.errors import EngineError, VlmRunError
from vlm_run.request import Request, Sampling
from vlm_run.response import Response

if TYPE_CHECKING:
    from vlm_run.adapter import Adapter
    from vlm_run.batch.data import Data

# Rows taken beyond the oldest that is not answered: what is answered waits in memory for its turn.
_WINDOW = 4096
# Engine options that change answers; the others change how fast they come.
_ANSWER_OPTIONS = (
    *("dtype", "quantization", "max_model_len", "mm_processor_kwargs", "limit_mm_per_prompt"),
    *("hf_overrides", "revision", "tokenizer", "seed", "trust_remote_code", "reasoning_parser"),
)


class Answering(Protocol):
    """What of an `Engine` a batch needs."""

    def as_completed(
        self, requests: Iterable[Request], sampling: Sampling, *, window: int | None = None
    ) -> Iterator[tuple[int, Response]]:
        """Responses as they finish, each with the number of its request."""


@dataclass(slots=True)
class Progress:
    """How far a run has come, of the rows that it had to do."""

    done: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    started: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.perf_counter() - self.started

    @property
    def rows_per_second(self) -> float:
        """Over the whole run."""
        return self.done / max(self.seconds, 1e-9)

    @property
    def tokens_per_second(self) -> float:
        """Tokens of answers, over the whole run."""
        return self.completion_tokens / max(self.seconds, 1e-9)


@dataclass(frozen=True, slots=True)
class Summary:
    """What a result file holds when a run is over.

    Attributes:
        rows: In the file.
        failed: Of these, how many have an error.
        kept: Of these, how many an earlier run had done.
        seconds: That this run took, without the engine's start.
        rows_per_second: Of this run.
        tokens_per_second: Of this run, tokens of answers.
        prompt_tokens: Of all rows in the file.
        completion_tokens: Of all rows in the file.
        metrics: Scores against the references of all rows that have one.
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
    data: Data,
    reading: Reading,
    sampling: Sampling,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """What the answers depend on: a result file goes on only under the same."""
    template = Path(adapter.spec.chat_template)
    kwargs = adapter.engine_kwargs(**options)
    return {
        "model": {
            "model_type": adapter.spec.model_type,
            "source": adapter.source,
            "weights": _weights(Path(adapter.source)),
            "chat_template": blake2b(template.read_bytes(), digest_size=16).hexdigest(),
            "options": {name: kwargs[name] for name in _ANSWER_OPTIONS if kwargs.get(name) is not None},
        },
        "data": {
            **data.identity,
            "mapping": dict(reading.mapping or {}),
            "prompt": reading.prompt,
            "system": reading.system,
        },
        "sampling": sampling.model_dump(mode="json"),
    }


def unfinished(data: Data, reading: Reading, results: ResultFile) -> Iterator[Row]:
    """The rows that are not done, as they are read.

    Raises:
        VlmRunError: The data cannot be read on.
    """
    number = -1
    try:
        for number, columns in data.rows():
            if not results.has(number):
                yield read_row(number, columns, reading)
    except VlmRunError:
        raise
    except Exception as error:  # what a library raises at data that it cannot read
        raise VlmRunError(
            f"{data.name} cannot be read beyond row {number + 1}: {error}",
            hint="What is answered is kept; run the same command again to go on.",
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
    """Answer rows and write a line for each.

    Args:
        engine: That answers; a bad row fails alone.
        rows: Read as the engine has room for them.
        results: Where the lines go.
        sampling: For rows that bring no sampling parameters of their own.
        ordered: Whether lines are written in the rows' order, or as rows finish.
        report: Called after each row.

    Raises:
        EngineError: The engine has died; what was answered is kept.
        VlmRunError: The data cannot be read on, or the file cannot be written.
    """
    progress = Progress()
    asked: dict[int, tuple[int, Row]] = {}
    waiting: dict[int, dict[str, Any]] = {}
    places = _Places()

    def finish(place: int, row: Row, response: Response | None) -> None:
        line = result_line(row, response)
        if ordered:
            waiting[place] = line
            while places.next in waiting:
                results.write(waiting.pop(places.next))
                places.next += 1
        else:
            results.write(line)
        progress.done += 1
        if "error" in line:
            progress.failed += 1
        elif response is not None:
            progress.prompt_tokens += response.usage.prompt_tokens
            progress.completion_tokens += response.usage.completion_tokens
        report(progress)

    def requests() -> Iterator[Request]:
        number = 0
        for place, row in enumerate(rows):
            if row.request is None:
                finish(place, row, None)
                continue
            asked[number] = (place, row)
            number += 1
            yield row.request

    answers = engine.as_completed(requests(), sampling, window=_WINDOW if ordered else None)
    try:
        for number, response in answers:
            place, row = asked.pop(number)
            finish(place, row, response)
    except (KeyboardInterrupt, EngineError):
        # What waits for an older row is done too; the run that goes on sorts the file.
        for place in sorted(waiting):
            results.write(waiting[place])
        raise
    if ordered:
        results.put_in_order()
    return progress


@dataclass(slots=True)
class _Places:
    next: int = 0
    """The place of the row whose line is written next."""


def result_line(row: Row, response: Response | None) -> dict[str, Any]:
    """The line of a row; `response` is None where the row could not be asked."""
    line: dict[str, Any] = {"row": row.number, "id": row.id, "request": row.shown}
    if row.reference is not None:
        line["reference"] = row.reference
    error = row.error if response is None else response.error
    if response is None or error is not None:
        line["finish_reason"] = "error"
        line["error"] = {"type": type(error).__name__, "message": str(error)}
        return line
    answer = response.to_dict()
    names = ("response", "responses", "finish_reason", "usage")
    line |= {name: answer[name] for name in names if name in answer}
    line["timings"] = {name: answer[name] for name in ("seconds", "first_token_seconds")}
    return line


def summarize(results: ResultFile, progress: Progress, metrics: Metrics) -> Summary:
    """Read the result file through: of a run that was resumed, too, it is the whole that counts."""
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


def _weights(folder: Path) -> str | None:
    """Of a checkpoint folder, its files' names, sizes and times; a hub's repository is named by `source`."""
    if not folder.is_dir():
        return None
    digest = blake2b(digest_size=16)
    for file in sorted(folder.iterdir()):
        facts = file.stat()
        digest.update(f"{file.name} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()
