"""Counts the tokens of images and videos with vLLM's own processor, without an engine or weights."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vlm_run.engine.renderer import Rendered
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
    return _counts(adapter, map(question_about_images, sizes), _image_tokens)


def video_token_counts(adapter: Adapter, videos: Sequence[tuple[int, int, int]]) -> list[int | RequestError]:
    """The tokens that vLLM's processor puts into a prompt for a video of each (width, height, frames).

    Frames are half a second apart. For a video that it refuses, the error takes the place of the count.

    Args:
        adapter: The model; its limits must allow a video.
        videos: Width and height in pixels and the number of frames of each.
    """
    questions = (question_about_video(*video) for video in videos)
    return _counts(adapter, questions, lambda rendered: rendered.video_tokens)


@contextmanager
def image_token_counter(adapter: Adapter) -> Iterator[Callable[[int, int], int | RequestError]]:
    """Yield a function that counts as `image_token_counts` does, for one width and height in pixels.

    vLLM's processor is made once, which takes most of the time.
    """
    with vllm_rendering(adapter) as render:
        yield lambda width, height: _count(render, question_about_images((width, height)), _image_tokens)


@contextmanager
def vllm_rendering(adapter: Adapter, **options: Any) -> Iterator[Callable[[Conversation], Rendered]]:
    """Yield a function that renders a conversation with vLLM's processor, which is made once.

    The options are those of `renderer_without_engine`.
    """
    # Not asyncio.run: in the main thread it formats each result, tensors included, for the signal module.
    with (
        renderer_without_engine(adapter, **options) as renderer,
        asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner,
    ):
        loop = runner.get_loop()
        yield lambda conversation: loop.run_until_complete(renderer.render(conversation))


def _counts(
    adapter: Adapter, questions: Iterable[Conversation], tokens: Callable[[Rendered], Iterable[int]]
) -> list[int | RequestError]:
    with vllm_rendering(adapter) as render:
        return [_count(render, question, tokens) for question in questions]


def _count(
    render: Callable[[Conversation], Rendered],
    question: Conversation,
    tokens: Callable[[Rendered], Iterable[int]],
) -> int | RequestError:
    try:
        return sum(tokens(render(question)))
    except RequestError as error:
        return error


def _image_tokens(rendered: Rendered) -> Iterable[int]:
    return rendered.image_tokens


def question_about_images(*sizes: tuple[int, int]) -> Conversation:
    """A question about black images, each of a (width, height) in pixels."""
    from PIL import Image

    return Conversation.from_query("What is this?", images=[Image.new("RGB", size) for size in sizes])


def question_about_video(width: int, height: int, frames: int) -> Conversation:
    """A question about a video of grey frames, half a second apart."""
    from PIL import Image

    video = Frames((Image.new("RGB", (width, height), "grey"),) * frames)
    return Conversation.from_query("What happens?", videos=[video])
