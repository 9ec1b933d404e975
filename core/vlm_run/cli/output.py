"""Tables, and where vLLM's own output goes."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import typer

from vlm_run.errors import EngineError

RULE = "-" * 50
"""The line between answers."""


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns of text, suitable for `grep` and `awk`, without the cost of importing rich."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for number, row in enumerate([header, *rows]):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        typer.secho(line, bold=number == 0)


def quieten_model_libraries(level: str = "ERROR") -> None:
    """Set vLLM's log level, and let transformers log errors only, unless the environment says otherwise."""
    # The libraries read these when they are imported, here and in vLLM's processes.
    vllm_logs_to_standard_error()
    os.environ.setdefault("VLLM_LOGGING_LEVEL", level)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")


def vllm_logs_to_standard_error() -> None:
    """Send vLLM's log to standard error, since standard output is for answers."""
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")


@contextlib.contextmanager
def starting(model_type: str, verbose: bool, note: str | None = None) -> Iterator[None]:
    """Show a spinner while the block starts an engine, and send vLLM's output to a log file.

    vLLM's processes write to that file for as long as they run. If the start fails, the error names it.

    Args:
        model_type: The model type to show.
        verbose: Whether vLLM's output is shown instead, which includes the note.
        note: A line to print first.
    """
    if verbose:
        vllm_logs_to_standard_error()
        yield
        return
    quieten_model_libraries("WARNING")
    from rich.console import Console
    from rich.live import Live
    from rich.spinner import Spinner

    log = tempfile.NamedTemporaryFile("w", prefix="vlm-run-", suffix=".log", delete=False)  # noqa: SIM115
    with _standard_streams_to(log) as terminal:
        console = Console(file=terminal)
        if note is not None:
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
        try:
            with spinner if console.is_terminal else contextlib.nullcontext():
                yield
        except EngineError as error:
            root = _root_cause(Path(log.name).read_text(encoding="utf-8", errors="replace"))
            if root is None:
                raise
            raise EngineError(root, hint=f"vLLM's output is in {log.name}.") from error
    log.close()
    os.unlink(log.name)  # vLLM's processes keep it open


def _root_cause(log: str) -> str | None:
    """Return the first error in a log of vLLM; later ones are usually its consequences."""
    errors = re.findall(r"\] (\w+(?:Error|Exception): .*)", log)
    return errors[0].rstrip(". ") if errors else None


@contextlib.contextmanager
def _standard_streams_to(log: IO[str]) -> Iterator[IO[str]]:
    """Redirect file descriptors 1 and 2 to a file, and yield the former standard error."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept_out, kept_err = os.dup(1), os.dup(2)
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    try:
        with open(os.dup(kept_err), "w", encoding="utf-8") as terminal:
            yield terminal
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(kept_out, 1)
        os.dup2(kept_err, 2)
        os.close(kept_out)
        os.close(kept_err)
