"""`vlm-run infer --val_dataset`: a data set through the engine into a result file."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from vlm_run.errors import VlmRunError

if TYPE_CHECKING:
    from vlm_run.adapter import Adapter
    from vlm_run.batch.run import Progress, Summary
    from vlm_run.engine import Engine
    from vlm_run.request import Sampling

SOME_FAILED = 3
"""The exit code where a row failed."""
# Where the progress cannot be redrawn, a line of it is printed this often.
_LINE_INTERVAL_S = 30.0


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """What the command's options say about a batch."""

    data: str
    result_path: Path | None
    subset: str | None
    split: str | None
    mapping: list[str]
    prompt: str | None
    system: str | None
    seed: int | None
    metrics: list[str]
    retry_errors: bool
    unordered: bool
    as_json: bool


def answer_data_set(
    adapter: Adapter,
    start: Callable[[bool], Engine],
    sampling: Sampling,
    engine_options: dict[str, Any],
    options: BatchOptions,
) -> None:
    """Answer what is left of a data set, and print a summary.

    Args:
        adapter: The model.
        start: Starts the engine; told whether rows may name files of this machine.
        sampling: For rows that bring no sampling parameters of their own.
        engine_options: On top of the plugin's.
        options: The rest.

    Raises:
        typer.Exit: 3 if rows failed.
    """
    from vlm_run.batch.columns import Reading
    from vlm_run.batch.data import open_data
    from vlm_run.batch.metrics import Metrics
    from vlm_run.batch.results import ResultFile
    from vlm_run.batch.run import Progress, describe_run, run_batch, summarize, unfinished

    metrics, mapping = Metrics(options.metrics), _mapping(options.mapping)
    data = open_data(options.data, subset=options.subset, split=options.split, seed=options.seed)
    reading = Reading(data.folder, mapping, options.prompt, options.system, sampling)
    path = options.result_path or default_result_path(options.data, adapter.spec.model_type)
    run = describe_run(adapter, data, reading, sampling, engine_options)
    with ResultFile(path, run, retry_errors=options.retry_errors) as results:
        rows = unfinished(data, reading, results)
        first = next(rows, None)
        progress = Progress()
        if first is None and not results.kept:
            raise VlmRunError(f"{options.data} has no rows")
        if first is not None:
            left = None if data.total is None else max(data.total - results.kept, 1)
            if results.kept:
                typer.echo(f"{path}: {results.kept:,} rows are done, going on.", err=True)
            with start(data.folder is not None) as engine, _shown(left) as report:
                try:
                    progress = run_batch(
                        engine,
                        itertools.chain([first], rows),
                        results,
                        sampling,
                        ordered=not options.unordered,
                        report=report,
                    )
                except KeyboardInterrupt:
                    typer.echo(
                        f"\nInterrupted. {path} keeps what is done; run the same again to go on.", err=True
                    )
                    raise
        elif not options.unordered:
            results.put_in_order()
        summary = summarize(results, progress, metrics)
    _print(summary, path, options.as_json)
    if summary.failed:
        raise typer.Exit(SOME_FAILED)


def default_result_path(data: str, model_type: str) -> Path:
    """In the current folder, so that the same command finds it again."""
    stem = Path(data.rstrip("/")).name
    for suffix in (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet"):
        stem = stem.replace(suffix, "")
    return Path(f"{re.sub(r'[^A-Za-z0-9._-]+', '-', stem) or 'data'}.{model_type}.jsonl")


def _mapping(assignments: list[str]) -> dict[str, str]:
    from vlm_run.batch.columns import NAMES

    mapping = {}
    for assignment in assignments:
        column, equals, name = assignment.rpartition("=")
        if not equals or not column or name not in NAMES:
            raise VlmRunError(
                f"--map {assignment} does not name a column's meaning",
                hint=f"Write --map COLUMN=NAME, where NAME is one of {', '.join(NAMES)}.",
            )
        mapping[column] = name
    return mapping


@contextmanager
def _shown(total: int | None) -> Iterator[Callable[[Progress], None]]:
    """A progress bar on standard error, or now and then a line where there is no terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _line_now_and_then(total)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    with Bar(
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("[red]{task.fields[failed]}[/] failed"),
        TextColumn("{task.fields[rows]:.1f} rows/s"),
        TextColumn("{task.fields[tokens]:.0f} tokens/s"),
        TimeRemainingColumn(),
        console=console,
    ) as bar:
        task = bar.add_task("rows", total=total, failed=0, rows=0.0, tokens=0.0)

        def report(progress: Progress) -> None:
            bar.update(
                task,
                completed=progress.done,
                failed=progress.failed,
                rows=progress.rows_per_second,
                tokens=progress.tokens_per_second,
            )

        yield report


def _line_now_and_then(total: int | None) -> Callable[[Progress], None]:
    last = time.monotonic()

    def report(progress: Progress) -> None:
        nonlocal last
        if time.monotonic() - last >= _LINE_INTERVAL_S:
            last = time.monotonic()
            whole = left = ""
            if total is not None:
                whole = f" of {total:,}"
                left = f", {(total - progress.done) / progress.rows_per_second / 60:.0f} min left"
            print(
                f"{progress.done:,}{whole} rows, {progress.failed:,} failed, "
                f"{progress.rows_per_second:.1f} rows/s, {progress.tokens_per_second:.0f} tokens/s{left}",
                file=sys.stderr,
                flush=True,
            )

    return report


def _print(summary: Summary, path: Path, as_json: bool) -> None:
    if as_json:
        said = {"result_path": str(path), **dataclasses.asdict(summary)}
        typer.echo(json.dumps(said, ensure_ascii=False))
        return
    kept = f" ({summary.kept:,} of them by an earlier run)" if summary.kept else ""
    typer.echo(f"{summary.rows - summary.failed:,} rows answered, {summary.failed:,} failed{kept}")
    typer.echo(
        f"{summary.seconds:,.1f} s, {summary.rows_per_second:,.1f} rows/s, "
        f"{summary.tokens_per_second:,.0f} tokens/s; "
        f"{summary.prompt_tokens:,} prompt tokens, {summary.completion_tokens:,} answer tokens"
    )
    for name, score in summary.metrics.items():
        typer.echo(f"{name}: {score:g}")
    if summary.failed:
        typer.echo("Try the failed rows again with --retry-errors.")
    typer.echo(f"Results: {path}")
