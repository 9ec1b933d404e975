"""Everything that runs vLLM. Importing this package does not import vLLM; starting an engine does."""

from __future__ import annotations

from vlm_run.engine.arguments import vllm_config
from vlm_run.engine.engine import Engine

__all__ = ["Engine", "vllm_config"]
