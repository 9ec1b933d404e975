"""vLLM's own `LLM.generate`, to compare with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vlm_run.engine.vllm_internals import stop_engine_processes


class PlainLLM:
    """`vllm.LLM` with greedy sampling.

    Args:
        engine_kwargs: In `vllm.EngineArgs`' names.
    """

    def __init__(self, engine_kwargs: Mapping[str, Any]) -> None:
        from vllm import LLM

        self._llm = LLM(**engine_kwargs)

    def generate(self, prompts: Sequence[Mapping[str, Any]], max_tokens: int) -> list[Any]:
        """vLLM's `RequestOutput` of each prompt, in order."""
        from vllm import SamplingParams

        sampling = SamplingParams(temperature=0, max_tokens=max_tokens)
        return list(self._llm.generate(prompts, sampling, use_tqdm=False))

    def shutdown(self) -> None:
        """End the engine's processes, for which this process would otherwise wait at its exit."""
        stop_engine_processes(self._llm.llm_engine)
