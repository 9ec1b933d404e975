"""Counts the tokens of images and videos with vLLM's own processor, without an engine or weights."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlm_run.engine.renderer import Renderer
from vlm_run.engine.standalone_renderer import renderer_without_engine
from vlm_run.errors import RequestError
from vlm_run.media.source import Frames
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


def video_token_counts(adapter: Adapter, videos: Sequence[tuple[int, int, int]]) -> list[int | RequestError]:
    """The tokens that vLLM's processor puts into a prompt for a video of each (width, height, frames).

    Frames are half a second apart. For a video that it refuses, the error takes the place of the count.

    Args:
        adapter: The model; its limits must allow a video.
        videos: Width and height in pixels and the number of frames of each.
    """
    with renderer_without_engine(adapter) as renderer:
        return asyncio.run(_video_counts(renderer, videos))


async def _video_counts(
    renderer: Renderer, videos: Sequence[tuple[int, int, int]]
) -> list[int | RequestError]:
    counts: list[int | RequestError] = []
    for video in videos:
        try:
            rendered = await renderer.render(question_about(*video))
        except RequestError as error:
            counts.append(error)
            continue
        counts.append(sum(rendered.video_tokens))
    return counts


def question_about(width: int, height: int, frames: int) -> Conversation:
    """A question about a video of grey frames, half a second apart."""
    from PIL import Image

    video = Frames((Image.new("RGB", (width, height), "grey"),) * frames)
    return Conversation.from_query("What happens?", videos=[video])
