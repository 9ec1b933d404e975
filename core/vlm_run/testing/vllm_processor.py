"""Counts image tokens with vLLM's own processor, without an engine or weights."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlm_run.engine.renderer import Renderer
from vlm_run.engine.standalone_renderer import renderer_without_engine
from vlm_run.errors import RequestError
from vlm_run.prompts.conversation import Conversation

if TYPE_CHECKING:
    from vlm_run.adapter import Adapter


def image_token_counts(adapter: Adapter, sizes: Sequence[tuple[int, int]]) -> list[int | RequestError]:
    """The image tokens that vLLM's processor puts into a prompt for an image of each (width, height).

    For a size that it refuses, the error takes the place of the count.
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
