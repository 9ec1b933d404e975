"""vLLM's profiler around the requests of a running engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vlm_run.engine.engine import Engine


def profiler_options(directory: Path) -> dict[str, Any]:
    """The engine options with which vLLM can write traces into a directory."""
    return {
        "profiler_config": {
            "profiler": "torch",
            "torch_profiler_dir": str(directory.absolute()),
            # Both would slow the engine down more than the work that is measured.
            "torch_profiler_with_stack": False,
            "ignore_frontend": True,
            # A table on the standard output, where `bench --json` prints.
            "torch_profiler_dump_cuda_time_total": False,
        }
    }


@contextmanager
def profiled(engine: Engine) -> Iterator[None]:
    """Record what the engine does meanwhile; its `profiler_options` say where."""
    engine._check_running()
    engine._thread.run(engine._llm.start_profile())
    try:
        yield
    finally:
        engine._thread.run(engine._llm.stop_profile())
