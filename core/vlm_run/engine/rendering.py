"""From a conversation to what vLLM's engine takes: token ids and image tensors.

A step of its own, before generation, so that it can run elsewhere (in a pool of processes, in
the server) and so that a bad request fails here, before the engine sees it.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vlm_run.conversation import Conversation
from vlm_run.engine.tokenize import control_tokens, encode
from vlm_run.engine.versions import request_errors
from vlm_run.errors import ContextOverflowError, ConversationError, RequestError
from vlm_run.media import MediaPolicy, load_image_async
from vlm_run.prompt import Prompt

if TYPE_CHECKING:
    from PIL import Image
    from vllm.inputs import EngineInput
    from vllm.renderers import BaseRenderer

    from vlm_run.adapter import Adapter

_SHORT_TEXT = 2000


@dataclass(frozen=True, slots=True)
class Rendered:
    """A request as the engine takes it."""

    engine_input: EngineInput
    prompt_tokens: int
    image_tokens: tuple[int, ...]
    seconds: float = 0.0
    """How long decoding and processing took."""


class Renderer:
    """Renders conversations for one model with vLLM's own multimodal processor.

    Args:
        adapter: The model.
        vllm_renderer: vLLM's own, of the same checkpoint.
        policy: What images may be fetched, and how large they may be.
        name_images: Whether to name each image by its content. vLLM does so with its caches on;
            with them off it counts, so that two processes would give two images one name, and
            the engine's encoder cache would answer about the wrong one.
    """

    def __init__(
        self,
        adapter: Adapter,
        vllm_renderer: BaseRenderer,
        policy: MediaPolicy,
        *,
        name_images: bool = False,
    ) -> None:
        self._adapter = adapter
        self._name_images = name_images
        self._vllm = vllm_renderer
        self._policy = policy
        self._tokenizer = vllm_renderer.get_tokenizer()
        self._control = control_tokens(self._tokenizer)
        config = vllm_renderer.model_config
        self._max_model_len: int = config.max_model_len
        self._max_images: int | None = (
            config.multimodal_config and config.multimodal_config.get_limit_per_prompt("image")
        )

    async def render(
        self, conversation: Conversation, *, cut: Callable[[list[int]], list[int]] | None = None
    ) -> Rendered:
        """The engine's input for a conversation.

        Args:
            conversation: The conversation.
            cut: Shortens the prompt's token ids; for conversations without images.

        Raises:
            RequestError: The conversation, one of its images or its length is at fault.
        """
        started = time.perf_counter()
        self.check_image_count(conversation)
        places = conversation.image_places()
        prompt = self._adapter.render(conversation, self._control)
        ids = await self._encode(prompt)
        if cut is not None:
            ids = cut(ids)
        self._check_length(ids, ())
        images = await asyncio.gather(
            *(
                load_image_async(
                    source,
                    self._policy,
                    message_index=message,
                    image_index=image,
                    prepare=self._adapter.preprocess,
                )
                for image, (message, source) in enumerate(places)
            )
        )
        engine_input = await self._process(ids, images)
        rendered = _measure(engine_input, time.perf_counter() - started)
        self._check_length(engine_input["prompt_token_ids"], rendered.image_tokens)
        return rendered

    async def _encode(self, prompt: Prompt) -> list[int]:
        # A short text is tokenized sooner than a thread is woken.
        if len(prompt.text) <= _SHORT_TEXT:
            return encode(prompt, self._tokenizer, self._adapter.spec)
        return await asyncio.to_thread(encode, prompt, self._tokenizer, self._adapter.spec)

    async def _process(self, ids: list[int], images: Sequence[Image.Image]) -> Any:
        prompt: dict[str, Any] = {"prompt_token_ids": ids}
        if images:
            prompt["multi_modal_data"] = {"image": list(images)}
            if self._name_images:
                names = await asyncio.to_thread(lambda: [_content_name(image) for image in images])
                prompt["multi_modal_uuids"] = {"image": names}
        try:
            # Not through the cache whose images are sent to the engine once: what is refused below, or
            # given up by its caller, never gets there, and the engine would miss it in later requests.
            (engine_input,) = await self._vllm.render_cmpl_async([prompt], skip_mm_cache=True)
        except request_errors() as error:
            raise RequestError(f"vLLM cannot process the request: {error}") from error
        return engine_input

    def check_image_count(self, conversation: Conversation) -> None:
        """Raise `ConversationError` for more images than the engine takes."""
        count = len(conversation.image_places())
        if self._max_images is not None and count > self._max_images:
            raise ConversationError(
                f"the request has {count} images, but the engine takes {self._max_images} at most",
                hint="Raise it with --max-images (in Python: Limits(max_images=…)).",
            )

    def _check_length(self, ids: Sequence[int], image_tokens: Sequence[int]) -> None:
        if len(ids) < self._max_model_len:
            return
        text = len(ids) - sum(image_tokens)
        parts = [f"image {number}: {count}" for number, count in enumerate(image_tokens, 1)]
        raise ContextOverflowError(
            f"the prompt has {len(ids)} tokens ({', '.join([*parts, f'text: {text}'])}), which leaves "
            f"no room for an answer in max_model_len, {self._max_model_len}",
            hint="Use fewer or smaller images, a shorter text, or a larger --max-model-len.",
        )


def _content_name(image: Image.Image) -> str:
    """The same for the same picture, in any process. What the engine does to it is fixed per engine."""
    digest = hashlib.blake2b(f"{image.mode} {image.width} {image.height} ".encode(), digest_size=32)
    digest.update(image.tobytes())
    return digest.hexdigest()


def _measure(engine_input: Any, seconds: float) -> Rendered:
    images = engine_input.get("mm_placeholders", {}).get("image", ())
    return Rendered(
        engine_input=engine_input,
        prompt_tokens=len(engine_input["prompt_token_ids"]),
        image_tokens=tuple(span.length for span in images),
        seconds=seconds,
    )
