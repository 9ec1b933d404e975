"""The progress of a batch: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlm_run.batch.run import Progress

# How often a line is printed where there is no terminal.
_LINE_INTERVAL_S = 30.0


@contextmanager
def show_progress(
    total: int | None, status: Callable[[], str] | None = None
) -> Iterator[Callable[[Progress], None]]:
    """Show progress on standard error while the block runs.

    Args:
        total: Number of rows to answer, if known.
        status: Describes the engines, where there are several.

    Yields:
        A function to call after each row.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _line_reporter(total, status)
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
        TextColumn("{task.fields[status]}"),
        console=console,
    ) as bar:
        task = bar.add_task("rows", total=total, failed=0, rows=0.0, tokens=0.0, status="")

        def report(progress: Progress) -> None:
            bar.update(
                task,
                completed=progress.done,
                failed=progress.failed,
                rows=progress.rows_per_second,
                tokens=progress.tokens_per_second,
                status=status() if status else "",
            )

        yield report


def _line_reporter(total: int | None, status: Callable[[], str] | None) -> Callable[[Progress], None]:
    last = time.monotonic()

    def report(progress: Progress) -> None:
        nonlocal last
        if time.monotonic() - last < _LINE_INTERVAL_S:
            return
        last = time.monotonic()
        of_total = remaining = ""
        if total is not None:
            of_total = f" of {total:,}"
            remaining = f", {(total - progress.done) / progress.rows_per_second / 60:.0f} min left"
        print(
            f"{progress.done:,}{of_total} rows, {progress.failed:,} failed, "
            f"{progress.rows_per_second:.1f} rows/s, {progress.tokens_per_second:.0f} tokens/s{remaining}"
            + (f"; {status()}" if status else ""),
            file=sys.stderr,
            flush=True,
        )

    return report
