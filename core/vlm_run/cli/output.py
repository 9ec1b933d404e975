"""Tables, and the progress of an engine's start."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import typer

RULE = "-" * 50
"""The line between answers."""


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns of text, suitable for `grep` and `awk`, without the cost of importing rich."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for number, row in enumerate([header, *rows]):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        typer.secho(line, bold=number == 0)


@contextlib.contextmanager
def starting(model_type: str, verbose: bool, *notes: str) -> Iterator[None]:
    """Show a spinner while the block starts an engine, and send vLLM's output to a log file.

    See `vlm_run.engine.quiet`.

    Args:
        model_type: The model type to show.
        verbose: Whether vLLM's output is shown instead, which includes the notes.
        notes: Lines to print first.
    """
    from vlm_run.engine.quiet import quiet_start, vllm_logs_to_standard_error

    if verbose:
        vllm_logs_to_standard_error()
        yield
        return
    from rich.console import Console
    from rich.live import Live
    from rich.spinner import Spinner

    with quiet_start() as terminal:
        console = Console(file=terminal)
        for note in notes:
            console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
        line = f"Loading {model_type} …"
        if not console.is_terminal:
            console.print(line)
        # vLLM's logger would keep a reference to the stream that rich puts in place of standard error.
        spinner = Live(
            Spinner("dots", line),
            console=console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        with spinner if console.is_terminal else contextlib.nullcontext():
            yield
