"""vLLM's own image processor for a model, with neither engine nor weights."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vlm_run.engine.rendering import Renderer
from vlm_run.errors import RequestError
from vlm_run.media import MediaPolicy
from vlm_run.prompts.conversation import Conversation

if TYPE_CHECKING:
    from vlm_run.adapter import Adapter

# One process, one picture at a time: nothing of the hardware a plugin's options are meant for.
_OPTIONS = {
    "dtype": "float32",
    "enforce_eager": True,
    "tensor_parallel_size": 1,
    "pipeline_parallel_size": 1,
    "data_parallel_size": 1,
    "mm_processor_cache_gb": 0,
}


@contextmanager
def renderer_without_engine(adapter: Adapter) -> Iterator[Renderer]:
    """What renders conversations for vLLM. The adapter's source must be a checkpoint folder.

    Raises:
        EngineError: vLLM is missing or refuses the configuration.
    """
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    config = adapter.vllm_config(**_OPTIONS)
    from vllm.renderers import renderer_from_config

    renderer = renderer_from_config(config)
    try:
        yield Renderer(adapter, renderer, MediaPolicy())
    finally:
        renderer.shutdown()


def image_token_counts(adapter: Adapter, sizes: Sequence[tuple[int, int]]) -> list[int | RequestError]:
    """For pictures of each (width, height), the image tokens that vLLM's processor puts into a prompt.

    Where it refuses one, the error stands in place of the count.
    """
    with renderer_without_engine(adapter) as renderer:
        return asyncio.run(_counts(renderer, sizes))


async def _counts(renderer: Renderer, sizes: Sequence[tuple[int, int]]) -> list[int | RequestError]:
    from PIL import Image

    counts: list[int | RequestError] = []
    for size in sizes:
        conversation = Conversation.from_query("What is this?", images=[Image.new("RGB", size)])
        try:
            rendered = await renderer.render(conversation)
        except RequestError as error:
            counts.append(error)
            continue
        counts.append(sum(rendered.image_tokens))
    return counts
