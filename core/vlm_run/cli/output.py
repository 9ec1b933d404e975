"""Tables, and a place for vLLM's own output while it starts."""

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
"""Between answers."""


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns of text, ready for `grep` and `awk`; rich would take longer to import than to print."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for number, row in enumerate([header, *rows]):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        typer.secho(line, bold=number == 0)


def quieten_model_libraries(level: str = "ERROR") -> None:
    """Let vLLM log from `level` on, and transformers errors alone; what the user has set stays."""
    # Read as they are imported, here and in vLLM's processes.
    vllm_logs_to_standard_error()
    os.environ.setdefault("VLLM_LOGGING_LEVEL", level)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")


def vllm_logs_to_standard_error() -> None:
    """Standard output is for answers, and vLLM may warn as late as at its end."""
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")


@contextlib.contextmanager
def starting(model_type: str, verbose: bool, note: str | None = None) -> Iterator[None]:
    """A progress line while an engine starts; what vLLM and its processes print goes to a file.

    Its processes keep writing there. If the start fails, the error says where the file is.

    Args:
        model_type: What is loaded.
        verbose: Let everything be printed instead, the note among it, which the engine logs.
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
        # Nothing is redirected: vLLM's log would hold on to rich's stand-in for standard error.
        turning = Live(
            Spinner("dots", line),
            console=console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        try:
            with turning if console.is_terminal else contextlib.nullcontext():
                yield
        except EngineError as error:
            root = _root_cause(Path(log.name).read_text(encoding="utf-8", errors="replace"))
            if root is None:
                raise
            raise EngineError(root, hint=f"vLLM's own output is in {log.name}.") from error
    log.close()
    os.unlink(log.name)  # its processes go on writing to it, unseen


def _root_cause(log: str) -> str | None:
    """The first error that one of vLLM's processes met; what the others say follows from it."""
    errors = re.findall(r"\] (\w+(?:Error|Exception): .*)", log)
    return errors[0].rstrip(". ") if errors else None


@contextlib.contextmanager
def _standard_streams_to(log: IO[str]) -> Iterator[IO[str]]:
    """Send file descriptors 1 and 2 to a file, and yield what was standard error."""
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
