"""Renders a conversation into the input of vLLM's engine: token ids and image tensors.

Rendering is separate from generation, so that it can run in a pool of processes or in the server, and so
that a bad request fails before the engine sees it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from PIL import Image as PILImage

from vlm_run.boxes import ImageSize
from vlm_run.engine.image_fetcher import Fetcher
from vlm_run.engine.image_loader import ImageLoader, LoadedImage
from vlm_run.engine.videos import LoadedVideo, load_video
from vlm_run.engine.vllm_internals import (
    EvictedByItsPrompt,
    process_prompt,
    processed_image_cache,
    request_errors,
)
from vlm_run.errors import ContextOverflowError, ConversationError, RequestError
from vlm_run.media import MediaPolicy
from vlm_run.media.load import locating_errors
from vlm_run.prompts.conversation import Conversation
from vlm_run.prompts.documents import with_pages
from vlm_run.prompts.prompt import Prompt
from vlm_run.prompts.support import check_takes_videos
from vlm_run.prompts.tokenize import control_tokens, encode
from vlm_run.response import Stages

if TYPE_CHECKING:
    from vllm.inputs import EngineInput
    from vllm.renderers import BaseRenderer

    from vlm_run.adapter import Adapter

_SHORT_TEXT = 2000


@dataclass(frozen=True, slots=True)
class Rendered:
    """A request in the form that the engine accepts.

    Attributes:
        engine_input: The engine's input.
        prompt_tokens: Tokens of the whole prompt, including image tokens.
        image_tokens: Tokens of each image, in order.
        video_tokens: Tokens of each video, in order.
        image_sizes: Size of each image, in order; empty if the model type has no `box_coordinates`.
        reused_images: Number of images whose processed form was in the cache.
        reused_videos: Number of videos whose processed form was in the cache.
        stages: Duration of each stage so far.
    """

    engine_input: EngineInput
    prompt_tokens: int
    image_tokens: tuple[int, ...]
    image_sizes: tuple[ImageSize, ...] = ()
    reused_images: int = 0
    reused_videos: int = 0
    stages: Stages = field(default_factory=Stages)
    video_tokens: tuple[int, ...] = ()


class Renderer:
    """Renders conversations for one model with vLLM's own multimodal processor.

    Each image gets a cache key for vLLM's caches: a hash of its content and of everything that affects how
    it is processed. vLLM's own keys are valid in one process only, and are mere counters where its caches
    are off: two processes would give two images the same key, and the engine's encoder cache would answer
    about the wrong one.

    Args:
        adapter: The model.
        vllm_renderer: vLLM's renderer of the same checkpoint. Images in its cache, if it has one, are
            neither decoded nor processed again.
        policy: Which images may be fetched, and how large they may be.
    """

    def __init__(self, adapter: Adapter, vllm_renderer: BaseRenderer, policy: MediaPolicy) -> None:
        self._adapter = adapter
        self._vllm = vllm_renderer
        self._policy = policy
        self._tokenizer = vllm_renderer.get_tokenizer()
        self._control = control_tokens(self._tokenizer)
        config = vllm_renderer.model_config
        self._max_model_len: int = config.max_model_len
        self._max_images: int | None = (
            config.multimodal_config and config.multimodal_config.get_limit_per_prompt("image")
        )
        self._max_videos: int | None = (
            config.multimodal_config and config.multimodal_config.get_limit_per_prompt("video")
        )
        self._processed = processed_image_cache(vllm_renderer)
        # Two adapters may share an engine. What the engine itself does to images is fixed.
        self._salt = f"{adapter.plugin.name} {adapter.plugin.version} {adapter.spec!r} ".encode()
        self._images = ImageLoader(adapter, policy, self._salt, self._is_processed)

    async def render(
        self,
        conversation: Conversation,
        fetcher: Fetcher | None = None,
        *,
        cut: Callable[[list[int]], list[int]] | None = None,
    ) -> Rendered:
        """Return the engine's input for a conversation.

        Args:
            conversation: The conversation.
            fetcher: The fetcher that the requests of a batch share.
            cut: Shortens the prompt's token ids; for conversations without images.

        Raises:
            RequestError: The conversation, one of its images or its length is at fault.
        """
        clock = _Clock()
        self.check_media_count(conversation)
        prompt = self._adapter.render_prompt(conversation, self._control)
        ids = await self._encode(prompt)
        if cut is not None:
            ids = cut(ids)
        self._check_length(ids, ())
        tokenized = clock.lap()
        conversation = await (fetcher or Fetcher(self._policy)).with_content(conversation)
        fetched = clock.lap()
        conversation, ids = await self._with_pages(conversation, ids)
        options = self._processor_options(conversation)
        images, videos = await self._load(conversation)
        decoded = clock.lap()
        try:
            engine_input = await self._process(ids, images, videos, options)
        except (RequestError, EvictedByItsPrompt) as error:
            if isinstance(error, RequestError) and _all_loaded(images, videos):
                raise
            # An image or a video was evicted from vLLM's cache in the meantime, or for another one of this
            # request, if they do not fit in the cache together.
            images, videos = await self._load(conversation, force=True)
            engine_input = await self._process(ids, images, videos, options, anew=True)
        if self._processed is not None:
            self._images.remember_sizes(images)
        stages = Stages(fetched, decoded, tokenized + clock.lap())
        rendered = _rendered(engine_input, images, videos, stages)
        pairs = zip(images, rendered.image_tokens, strict=True)
        if any(image.tokens not in (None, count) for image, count in pairs):
            # The checkpoint's processor is not the one that the plugin describes.
            self._images.full_resolution_only = True
            return await self.render(conversation, fetcher)
        self._check_length(engine_input["prompt_token_ids"], rendered.image_tokens, rendered.video_tokens)
        return rendered

    async def _with_pages(self, conversation: Conversation, ids: list[int]) -> tuple[Conversation, list[int]]:
        """The conversation with an image for each page of a document, and the token ids of its prompt."""
        if all(isinstance(source, PILImage.Image) for source in conversation.images):
            return conversation, ids
        paged = await asyncio.to_thread(with_pages, conversation, self._policy)
        if len(paged.images) != len(conversation.images):  # each page has a placeholder of its own
            self.check_media_count(paged)
            ids = await self._encode(self._adapter.render_prompt(paged, self._control))
        return paged, ids

    async def _encode(self, prompt: Prompt) -> list[int]:
        # Tokenizing a short text takes less time than waking a thread.
        if len(prompt.text) <= _SHORT_TEXT:
            return encode(prompt, self._tokenizer, self._adapter.spec)
        return await asyncio.to_thread(encode, prompt, self._tokenizer, self._adapter.spec)

    async def _load(
        self, conversation: Conversation, *, force: bool = False
    ) -> tuple[list[LoadedImage], list[LoadedVideo]]:
        """The images and videos. Those that vLLM's cache has in processed form are decoded only by force."""
        images = await self._images.load(conversation, force=force)
        return images, await self._load_videos(conversation, force=force)

    async def _load_videos(self, conversation: Conversation, *, force: bool = False) -> list[LoadedVideo]:
        def is_processed(key: str) -> bool:
            return not force and self._is_processed(key)

        # One after the other: each may have hundreds of frames.
        return [
            await asyncio.to_thread(
                load_video, self._adapter, video, self._policy, self._salt, is_processed, message, index
            )
            for index, (message, video) in enumerate(conversation.video_places())
        ]

    def _is_processed(self, key: str) -> bool:
        """Return whether vLLM's cache has the processed form of an image or a video."""
        return self._processed is not None and bool(self._processed.is_cached_item(key))

    def _processor_options(self, conversation: Conversation) -> dict[str, Any]:
        """Return the processor's options for the bounds of the images, which it takes for a whole prompt."""
        first: dict[str, Any] | None = None
        for index, (message, image) in enumerate(conversation.image_places()):
            with locating_errors(message, index):
                options = self._adapter.processor_options(image)
            if first not in (None, options):
                raise ConversationError(
                    f"'{self._adapter.spec.model_type}' needs one max_pixels for all images of a request",
                    hint="Give it beside the messages, not in one image part.",
                    message_index=message,
                    image_index=index,
                )
            first = options
        return first or {}

    async def _process(
        self,
        ids: list[int],
        images: Sequence[LoadedImage],
        videos: Sequence[LoadedVideo],
        processor_kwargs: Mapping[str, Any],
        *,
        anew: bool = False,
    ) -> Any:
        try:
            return await process_prompt(
                self._vllm,
                ids,
                [image.pixels for image in images],
                [image.cache_key for image in images],
                [video.item for video in videos],
                [video.cache_key for video in videos],
                processor_kwargs,
                anew=anew,
            )
        except request_errors() as error:
            raise RequestError(f"vLLM cannot process the request: {error}") from error

    def check_media_count(self, conversation: Conversation) -> None:
        """Check that the engine accepts this many images and videos.

        Raises:
            ConversationError: There are more than the engine accepts.
            MediaError: There are videos, but the model takes none.
        """
        check_takes_videos(self._adapter.spec, conversation)
        videos = len(conversation.video_places())
        if videos and self._max_videos is not None and videos > self._max_videos:
            takes = f"{self._max_videos} at most" if self._max_videos else "none"
            raise ConversationError(
                f"the request has {videos} video{'s' if videos > 1 else ''}, but the engine takes {takes}",
                hint="Raise it with --max-videos (in Python: Limits(max_videos=…)).",
            )
        count = len(conversation.image_places())
        if self._max_images is not None and count > self._max_images:
            raise ConversationError(
                f"the request has {count} images, but the engine takes {self._max_images} at most",
                hint="Raise it with --max-images (in Python: Limits(max_images=…)).",
            )

    def _check_length(
        self, ids: Sequence[int], image_tokens: Sequence[int], video_tokens: Sequence[int] = ()
    ) -> None:
        if len(ids) < self._max_model_len:
            return
        text = len(ids) - sum(image_tokens) - sum(video_tokens)
        parts = [f"image {number}: {count}" for number, count in enumerate(image_tokens, 1)]
        parts += [f"video {number}: {count}" for number, count in enumerate(video_tokens, 1)]
        raise ContextOverflowError(
            f"the prompt has {len(ids)} tokens ({', '.join([*parts, f'text: {text}'])}), which leaves "
            f"no room for an answer in max_model_len, {self._max_model_len}",
            hint="Use fewer frames (num_frames), a smaller max_pixels, or a larger --max-model-len."
            if video_tokens
            else "Use fewer or smaller images, a shorter text, or a larger --max-model-len.",
        )


def _all_loaded(images: Sequence[LoadedImage], videos: Sequence[LoadedVideo]) -> bool:
    """Whether all were decoded, so that nothing depends on vLLM's cache."""
    return all(image.pixels is not None for image in images) and all(
        video.clip is not None for video in videos
    )


def _rendered(
    engine_input: Any, images: Sequence[LoadedImage], videos: Sequence[LoadedVideo], stages: Stages
) -> Rendered:
    return Rendered(
        engine_input=engine_input,
        prompt_tokens=len(engine_input["prompt_token_ids"]),
        image_tokens=_lengths(engine_input, "image"),
        video_tokens=_lengths(engine_input, "video"),
        image_sizes=tuple(image.size for image in images if image.size is not None),
        reused_images=sum(image.pixels is None for image in images),
        reused_videos=sum(video.clip is None for video in videos),
        stages=stages,
    )


def _lengths(engine_input: Any, kind: str) -> tuple[int, ...]:
    """Return the number of tokens of each image or video."""
    return tuple(span.length for span in engine_input.get("mm_placeholders", {}).get(kind, ()))


class _Clock:
    """Measures the duration of consecutive stages."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def lap(self) -> float:
        """Return the seconds since the last lap."""
        before, self._since = self._since, time.perf_counter()
        return self._since - before
