"""Commands that run in this process, with the tests' one engine in place of one of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from vlm_run import Engine, MediaPolicy
from vlm_run.adapter import Adapter
from vlm_run.cli import app

Run = Callable[..., Result]


@pytest.fixture
def run_on_engine(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A function that runs a command which would start demo-llava, without the minute that it takes."""

    @contextmanager
    def running(adapter: Adapter, policy: MediaPolicy | None = None, **options: Any) -> Iterator[Engine]:
        assert (adapter.spec, adapter.source) == (engine.adapter.spec, engine.adapter.source)
        assert policy in (None, MediaPolicy())
        assert options in ({}, {"dtype": "float32"})
        yield engine

    monkeypatch.setattr(Adapter, "engine", running)
    return lambda *words: CliRunner().invoke(app, words, catch_exceptions=False)
