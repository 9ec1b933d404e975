"""vLLM's own image processor for a model, with neither engine nor weights."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vlm_run.engine.renderer import Renderer
from vlm_run.media import MediaPolicy

if TYPE_CHECKING:
    from vllm.renderers import BaseRenderer

    from vlm_run.adapter import Adapter

OPTIONS: dict[str, Any] = {
    "dtype": "float32",
    "enforce_eager": True,
    "tensor_parallel_size": 1,
    "pipeline_parallel_size": 1,
    "data_parallel_size": 1,
    "mm_processor_cache_gb": 0,
}
"""For one process and one image at a time: the options that plugins set for GPUs do not apply."""


@contextmanager
def renderer_without_engine(adapter: Adapter, **options: Any) -> Iterator[Renderer]:
    """Yield a renderer for a model. The adapter's source must be a checkpoint directory.

    Args:
        adapter: The model.
        options: Engine options in place of those that are right for one image at a time, such as a cache.

    Raises:
        EngineError: vLLM is missing or refuses the configuration.
    """
    renderer = vllm_renderer(adapter, **options)
    try:
        yield Renderer(adapter, renderer, MediaPolicy())
    finally:
        renderer.shutdown()


def vllm_renderer(adapter: Adapter, **options: Any) -> BaseRenderer:
    """vLLM's part of such a renderer, with the same arguments, until its `shutdown`.

    Raises:
        EngineError: vLLM is missing or refuses the configuration.
    """
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    config = adapter.vllm_config(**{**OPTIONS, **options})
    from vllm.renderers import renderer_from_config

    return renderer_from_config(config)
