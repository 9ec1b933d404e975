"""Where the output of vLLM and its processes goes."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from vlm_run.errors import EngineError


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
def quiet_start() -> Iterator[IO[str]]:
    """Send what is printed while the block starts an engine to a log file.

    vLLM's processes write to that file for as long as they run. If the start fails, the error names it.

    Yields:
        The former standard error.
    """
    quieten_model_libraries("WARNING")
    log = tempfile.NamedTemporaryFile("w", prefix="vlm-run-", suffix=".log", delete=False)  # noqa: SIM115
    with _standard_streams_to(log) as terminal:
        try:
            yield terminal
        except EngineError as error:
            root = _root_cause(Path(log.name).read_text(encoding="utf-8", errors="replace"))
            if root is None:
                raise
            raise EngineError(root, hint=f"vLLM's output is in {log.name}.") from error
    log.close()
    os.unlink(log.name)  # vLLM's processes keep it open


@contextlib.contextmanager
def quiet_shutdown() -> Iterator[None]:
    """Hide vLLM's warnings about processes that it ends because they have not ended in time."""
    logger = logging.getLogger("vllm")
    level = logger.level
    logger.setLevel(max(level, logging.ERROR))
    try:
        yield
    finally:
        logger.setLevel(level)


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
