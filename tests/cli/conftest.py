"""Commands that run in this process, with the tests' one engine in place of one of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any
from unittest.mock import patch

import pytest
from click.testing import Result
from typer.testing import CliRunner

from vlm_run import Engine, MediaPolicy
from vlm_run.adapter import Adapter
from vlm_run.cli import app, main

Run = Callable[..., Result]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Run `vlm-run WORDS` as the installed script does, without the second that a process takes."""
    output, errors = StringIO(), StringIO()
    with (
        patch.object(sys, "argv", ["vlm-run", *words]),
        redirect_stdout(output),
        redirect_stderr(errors),
        pytest.raises(SystemExit) as leaving,
    ):
        main()
    return subprocess.CompletedProcess(words, leaving.value.code or 0, output.getvalue(), errors.getvalue())


class BorrowedEngine:
    """The tests' engine, which leaving a `with` block does not shut down."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def __enter__(self) -> BorrowedEngine:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave it running."""


@pytest.fixture
def run_on_engine(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A function that runs a command which would start demo-llava, without the minute that it takes."""

    def borrow(adapter: Adapter, policy: MediaPolicy | None = None, **options: Any) -> BorrowedEngine:
        assert (adapter.spec, adapter.source) == (engine.adapter.spec, engine.adapter.source)
        assert policy in (None, MediaPolicy())
        assert options in ({}, {"dtype": "float32"})
        return BorrowedEngine(engine)

    monkeypatch.setattr(Adapter, "engine", borrow)
    return lambda *words: CliRunner().invoke(app, words, catch_exceptions=False)
