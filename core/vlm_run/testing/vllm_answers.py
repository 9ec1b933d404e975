"""What vLLM's processor makes of prompts, found out once for each of them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_run.engine.renderer import Renderer
from vlm_run.engine.standalone_renderer import OPTIONS, vllm_renderer
from vlm_run.media import MediaPolicy

if TYPE_CHECKING:
    from vlm_run.adapter import Adapter


def remembering_renderer(adapter: Adapter) -> Renderer:
    """A renderer for a model that asks vLLM once about the same prompt with the same images and videos.

    Its results have no tensors, only what is counted. Two adapters share vLLM's part if it gets the same
    files and the same engine options for both, as for model types that differ in their weights only.
    Everything that vlm-run and the plugin do is done each time.

    Raises:
        EngineError: vLLM is missing or refuses the configuration.
    """
    source = Path(adapter.source)
    files = [(str(file), file.stat()) for file in sorted(source.rglob("*"))] if source.is_dir() else []
    stamps = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in files]
    # A plugin may register a class of its own for an architecture.
    asked = repr((adapter.plugin.name, stamps, sorted(adapter.engine_kwargs(**OPTIONS).items())))
    return Renderer(adapter, _remembering(_Asked(asked, adapter)), MediaPolicy())


@dataclass(frozen=True, slots=True)
class _Asked:
    """Everything that vLLM's part depends on, and an adapter by which to ask for it."""

    everything: str
    adapter: Adapter = field(compare=False)


@lru_cache(maxsize=8)
def _remembering(asked: _Asked) -> Any:
    return _Remembering(vllm_renderer(asked.adapter))


class _Remembering:
    """vLLM's renderer, with its answers to the same questions remembered."""

    def __init__(self, renderer: Any) -> None:
        self._renderer = renderer
        self._answers: dict[str, dict[str, Any]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._renderer, name)

    async def render_cmpl_async(self, prompts: Sequence[Mapping[str, Any]], **options: Any) -> list[Any]:
        return [await self._answer(prompt, options) for prompt in prompts]

    async def _answer(self, prompt: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        from blake3 import blake3  # a dependency of vLLM

        # The names of images and videos in caches differ by model type.
        unnamed = {name: value for name, value in prompt.items() if name != "multi_modal_uuids"}
        question = blake3(pickle.dumps((unnamed, options))).hexdigest()
        if question not in self._answers:
            (answer,) = await self._renderer.render_cmpl_async([prompt], **options)
            self._answers[question] = {name: value for name, value in answer.items() if name != "mm_kwargs"}
        # Whoever asks writes its own names into the answer.
        return {**self._answers[question], "mm_hashes": {}}
