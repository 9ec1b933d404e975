"""What tests of the core and of the plugins share: one running engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from vlm_run import Engine, Registry


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """Real vLLM with the demo model; started once, since that takes most of the time."""
    with Registry.load("demo-llava").engine() as running:
        yield running
