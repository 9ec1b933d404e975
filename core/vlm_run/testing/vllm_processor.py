"""Counts the tokens of images and videos with vLLM's own processor, without an engine or weights."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeAlias

from vlm_run.engine.renderer import Rendered, Renderer
from vlm_run.engine.standalone_renderer import renderer_without_engine
from vlm_run.errors import RequestError
from vlm_run.media.source import Frames
from vlm_run.prompts.conversation import Conversation
from vlm_run.testing.vllm_answers import remembering_renderer

if TYPE_CHECKING:
    from vlm_run.adapter import Adapter

Render: TypeAlias = Callable[[Conversation], Rendered]


def image_token_counts(adapter: Adapter, sizes: Sequence[tuple[int, int]]) -> list[int | RequestError]:
    """The image tokens that vLLM's processor puts into a prompt for an image of each (width, height).

    For a size that it refuses, the error takes the place of the count.
    """
    with vllm_counting(adapter) as render:
        return [_count(render, question_about_images(size), attrgetter("image_tokens")) for size in sizes]


def video_token_counts(adapter: Adapter, videos: Sequence[tuple[int, int, int]]) -> list[int | RequestError]:
    """The tokens that vLLM's processor puts into a prompt for a video of each (width, height, frames).

    Frames are half a second apart. For a video that it refuses, the error takes the place of the count.

    Args:
        adapter: The model; its limits must allow a video.
        videos: Width and height in pixels and the number of frames of each.
    """
    with vllm_counting(adapter) as render:
        return [_count(render, question_about_video(*video), attrgetter("video_tokens")) for video in videos]


@contextmanager
def vllm_counting(adapter: Adapter) -> Iterator[Render]:
    """Yield a function that renders a conversation with vLLM's processor, for what is counted in it.

    vLLM is asked once about the same question, see `remembering_renderer`.
    """
    with _rendering(remembering_renderer(adapter)) as render:
        yield render


@contextmanager
def vllm_rendering(adapter: Adapter, **options: Any) -> Iterator[Render]:
    """Yield a function that renders a conversation with vLLM's processor, which is made once.

    The options are those of `renderer_without_engine`.
    """
    with renderer_without_engine(adapter, **options) as renderer, _rendering(renderer) as render:
        yield render


@contextmanager
def _rendering(renderer: Renderer) -> Iterator[Render]:
    # Not asyncio.run: in the main thread it formats each result, tensors included, for the signal module.
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        loop = runner.get_loop()
        yield lambda conversation: loop.run_until_complete(renderer.render(conversation))


def _count(
    render: Render, question: Conversation, tokens: Callable[[Rendered], tuple[int, ...]]
) -> int | RequestError:
    try:
        return sum(tokens(render(question)))
    except RequestError as error:
        return error


def question_about_images(*sizes: tuple[int, int]) -> Conversation:
    """A question about black images, each of a (width, height) in pixels."""
    from PIL import Image

    return Conversation.from_query("What is this?", images=[Image.new("RGB", size) for size in sizes])


def question_about_video(width: int, height: int, frames: int) -> Conversation:
    """A question about a video of grey frames, half a second apart."""
    from PIL import Image

    video = Frames((Image.new("RGB", (width, height), "grey"),) * frames)
    return Conversation.from_query("What happens?", videos=[video])
