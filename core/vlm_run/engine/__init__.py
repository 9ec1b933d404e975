"""Everything that knows vLLM. Importing this package does not import it; starting an engine does."""

from __future__ import annotations

from vlm_run.engine.engine import Engine

__all__ = ["Engine"]
