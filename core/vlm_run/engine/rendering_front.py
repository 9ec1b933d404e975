"""Where a request is rendered: images are fetched, then a renderer process or this process renders it.

The engine and the server both render through a `RenderingFront`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from vlm_run.engine.image_fetcher import Fetcher
from vlm_run.engine.renderer import Rendered, Renderer
from vlm_run.errors import RequestError
from vlm_run.media.load import is_remote
from vlm_run.prompts.conversation import Conversation

if TYPE_CHECKING:
    from vllm.config import VllmConfig

    from vlm_run.adapter import Adapter
    from vlm_run.engine.renderer_pool import RendererPool
    from vlm_run.media import MediaPolicy


class RenderingFront:
    """Renders conversations in a pool of processes or, without one, in this process.

    Args:
        renderer: Renders in this process.
        pool: Renders requests with images, if there is one. Text alone is always rendered in this
            process, since that takes less time than the way to another one.
    """

    def __init__(self, renderer: Renderer, pool: RendererPool | None) -> None:
        self._renderer = renderer
        self._pool = pool
        # vLLM processes one image at a time here; more decoded ones would only occupy memory.
        self._at_once = asyncio.Semaphore(len(os.sched_getaffinity(0)) + 1)

    async def render(
        self,
        conversation: Conversation,
        fetcher: Fetcher,
        *,
        cut: Callable[[list[int]], list[int]] | None = None,
    ) -> Rendered:
        """The engine's input for a conversation.

        Args:
            conversation: The messages and their images.
            fetcher: Fetches remote images; one for all requests of a batch.
            cut: Shortens the prompt's token ids. Not supported with images.

        Raises:
            RequestError: The conversation, one of its images or its length is at fault.
        """
        if not (conversation.images or conversation.videos):
            return await self._renderer.render(conversation, fetcher, cut=cut)
        if cut is not None:
            raise RequestError("a prompt with images or videos cannot be truncated")
        self._renderer.check_media_count(conversation)
        fetch_seconds = 0.0
        if any(map(is_remote, (*conversation.images, *conversation.videos))):
            # Here, since a worker that waits for a slow host would keep others' requests waiting.
            started = time.perf_counter()
            conversation = await fetcher.with_content(conversation)
            fetch_seconds = time.perf_counter() - started
        rendered = await self._render_loaded(conversation)
        return replace(rendered, stages=replace(rendered.stages, fetch=fetch_seconds))

    async def _render_loaded(self, conversation: Conversation) -> Rendered:
        if self._pool is not None:
            return await self._pool.render(conversation)
        async with self._at_once:
            return await self._renderer.render(conversation)


def start_renderer_pool(
    adapter: Adapter, config: VllmConfig, policy: MediaPolicy, size: int
) -> RendererPool | None:
    """Start the renderer processes of an engine that has not started yet, and divide its image cache.

    Args:
        adapter: The model.
        config: The engine's. Its cache of processed images is turned off if there is a pool.
        policy: What images may be fetched, and how large they may be.
        size: Number of processes; 0 for none.
    """
    if not size:
        return None
    from vlm_run.engine.renderer_pool import RendererPool

    cache_gb = divide_image_cache(config, size)
    return RendererPool(adapter, config, policy, size, cache_gb)


def divide_image_cache(config: VllmConfig, processes: int) -> float:
    """Give an engine's cache of processed images to its renderer processes; each one's share in GB.

    The cache works in one process only, so the engine's own is turned off in `config`.
    """
    images = config.model_config.multimodal_config
    share: float = images.mm_processor_cache_gb / processes
    images.mm_processor_cache_gb = 0
    return share
