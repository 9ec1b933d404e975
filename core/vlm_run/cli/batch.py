"""`vlm-run infer --val_dataset`: answers a dataset into a result file."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlm_run.errors import VlmRunError

if TYPE_CHECKING:
    from vlm_run.adapter import Adapter
    from vlm_run.batch.row import RowFormat
    from vlm_run.batch.run import Answering, Summary
    from vlm_run.batch.sources import Dataset
    from vlm_run.request import Request, Sampling

SOME_FAILED = 3
"""The exit code if a row failed."""
_DATASET = "Dataset"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOptions:
    """Which dataset is answered, and how.

    Attributes:
        val_dataset: A file, a directory or a name on the Hugging Face hub; None for no batch.
        result_path: The result file.
        subset: Subset of a dataset that has several.
        split: Split of a dataset that has several.
        encoding: Encoding of a text file that is not in UTF-8.
        mapping: Meanings of columns, each as COLUMN=NAME.
        prompt: The question of rows that have none.
        metric: Metrics beside exact match.
        retry_errors: Whether rows that failed in an earlier run are answered again.
        unordered: Whether rows are written as they finish, not in the dataset's order.
    """

    val_dataset: Annotated[
        str | None,
        typer.Option(
            metavar="DATA[#N]",
            help="JSONL, JSON, CSV or Parquet file, PDF, directory of images and PDFs, or Hugging Face "
            "dataset; #N takes N rows.",
            rich_help_panel=_DATASET,
        ),
    ] = None
    result_path: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT.jsonl",
            help="Result file, one line per row; the same command resumes it.",
            rich_help_panel=_DATASET,
        ),
    ] = None
    subset: Annotated[str | None, typer.Option(help="Subset of the dataset.", rich_help_panel=_DATASET)] = (
        None
    )
    split: Annotated[str | None, typer.Option(help="Split of the dataset.", rich_help_panel=_DATASET)] = None
    encoding: Annotated[
        str | None,
        typer.Option(help="Encoding of a text file that is not in UTF-8.", rich_help_panel=_DATASET),
    ] = None
    mapping: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="COLUMN=NAME",
            help="Use COLUMN as query, response, images …; repeatable.",
            rich_help_panel=_DATASET,
        ),
    ] = None
    prompt: Annotated[
        str | None, typer.Option(help="Question of rows that have none.", rich_help_panel=_DATASET)
    ] = None
    metric: Annotated[
        list[str] | None,
        typer.Option(help="rouge, bleu or anls, beside exact_match; repeatable.", rich_help_panel=_DATASET),
    ] = None
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Answer failed rows again.", rich_help_panel=_DATASET)
    ] = False
    unordered: Annotated[
        bool, typer.Option("--unordered", help="Write rows as they finish.", rich_help_panel=_DATASET)
    ] = False


def answer_dataset(
    adapter: Adapter,
    start: Callable[[Request | None, bool], AbstractContextManager[Answering]],
    sampling: Sampling,
    engine_options: dict[str, Any],
    options: BatchOptions,
    *,
    system: str | None,
    task: str | None,
    seed: int | None,
    as_json: bool,
) -> None:
    """Answer the rows of a dataset that have no result yet, and print a summary.

    Args:
        adapter: The model.
        start: Starts one engine or several, until its block ends; its arguments are the first request
            and whether rows may name local files.
        sampling: Sampling parameters of rows that have none of their own.
        engine_options: Engine options on top of the adapter's.
        options: The dataset, and how it is answered.
        system: The system message of rows that have none.
        task: The task of rows that have none.
        seed: With `#N`, draws the rows at random.
        as_json: Whether the summary is printed as JSON.

    Raises:
        VlmRunError: The dataset cannot be read, or the result file belongs to another run.
        typer.Exit: Code 3 if a row failed.
    """
    from vlm_run.batch.metrics import Metrics
    from vlm_run.batch.results import ResultFile
    from vlm_run.batch.run import Progress, describe_run, run_batch, summarize, unfinished_rows
    from vlm_run.cli.progress import show_progress

    assert options.val_dataset is not None
    metrics = Metrics(options.metric or ())
    dataset, row_format = _open(options, adapter, sampling, system, task, seed)
    path = options.result_path or default_result_path(options.val_dataset, adapter.spec.model_type)
    run = describe_run(adapter, dataset, row_format, sampling, engine_options)
    for note in dataset.notes:
        _print_note(note)
    with ResultFile(path, run, retry_errors=options.retry_errors) as results:
        rows = unfinished_rows(dataset, row_format, results, _print_note)
        first = next(rows, None)
        progress = Progress()
        if first is None and not results.kept:
            raise VlmRunError(f"{options.val_dataset} has no rows")
        if first is not None:
            remaining = None if dataset.total is None else max(dataset.total - results.kept, 1)
            if results.kept:
                typer.echo(f"{path}: resuming after {results.kept:,} finished rows.", err=True)
            with (
                start(first.request, dataset.directory is not None) as engine,
                show_progress(remaining, getattr(engine, "status", None)) as report,
                _resumable(path),
            ):
                rows = itertools.chain([first], rows)
                ordered = not options.unordered
                progress = run_batch(engine, rows, results, sampling, ordered=ordered, report=report)
        elif not options.unordered:
            results.put_in_order()
        summary = summarize(results, progress, metrics)
    _print(summary, path, as_json)
    if summary.failed:
        raise typer.Exit(SOME_FAILED)


def _open(
    options: BatchOptions,
    adapter: Adapter,
    sampling: Sampling,
    system: str | None,
    task: str | None,
    seed: int | None,
) -> tuple[Dataset, RowFormat]:
    """Open the dataset, and return with it how its rows are read."""
    from vlm_run.batch.row import RowFormat
    from vlm_run.batch.sources import open_dataset

    assert options.val_dataset is not None
    mapping = _parse_mapping(options.mapping or [])
    dataset = open_dataset(
        options.val_dataset,
        subset=options.subset,
        split=options.split,
        seed=seed,
        encoding=options.encoding,
    )
    return dataset, RowFormat(
        # Absolute, since replicas on Ray have a working directory of their own.
        dataset.directory and dataset.directory.absolute(),
        mapping,
        options.prompt,
        system,
        sampling,
        task,
        has_tasks=bool(adapter.spec.tasks),
        text_only=dataset.text_only,
        kept=dataset.kept,
    )


@contextmanager
def _resumable(path: Path) -> Iterator[None]:
    """Say what an interrupt in the block leaves, and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(
            f"\nInterrupted. {path} keeps the finished rows; run the same command again to resume.", err=True
        )
        raise


def default_result_path(dataset: str, model_type: str) -> Path:
    """Return the result file in the working directory that the same command always uses.

    >>> default_result_path("data/questions.jsonl#100", "qwen2-vl-7b-instruct")
    PosixPath('questions-100.qwen2-vl-7b-instruct.jsonl')
    """
    stem = Path(dataset.rstrip("/")).name
    for suffix in (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".pdf", ".tiff", ".tif"):
        stem = stem.replace(suffix, "")
    return Path(f"{re.sub(r'[^A-Za-z0-9._-]+', '-', stem) or 'data'}.{model_type}.jsonl")


def _parse_mapping(assignments: list[str]) -> dict[str, str]:
    from vlm_run.batch.row import COLUMNS

    mapping = {}
    for assignment in assignments:
        column, equals, name = assignment.rpartition("=")
        if not equals or not column or name not in COLUMNS:
            raise VlmRunError(
                f"--map {assignment} does not map a column to a known name",
                hint=f"Write --map COLUMN=NAME, where NAME is one of {', '.join(COLUMNS)}.",
            )
        mapping[column] = name
    return mapping


def _print_note(text: str) -> None:
    typer.secho(f"note: {text}", fg="yellow", err=True)


def _print(summary: Summary, path: Path, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"result_path": str(path), **dataclasses.asdict(summary)}, ensure_ascii=False))
        return
    kept = f" ({summary.kept:,} of them in an earlier run)" if summary.kept else ""
    typer.echo(f"{summary.rows - summary.failed:,} rows answered, {summary.failed:,} failed{kept}")
    typer.echo(
        f"{summary.seconds:,.1f} s, {summary.rows_per_second:,.1f} rows/s, "
        f"{summary.tokens_per_second:,.0f} tokens/s; "
        f"{summary.prompt_tokens:,} prompt tokens, {summary.completion_tokens:,} answer tokens"
    )
    for name, score in summary.metrics.items():
        typer.echo(f"{name}: {score:g}")
    if summary.failed:
        typer.echo("Retry the failed rows with --retry-errors.")
    typer.echo(f"Results: {path}")
