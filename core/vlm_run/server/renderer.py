"""vLLM's renderer for chat messages with the adapter in it.

vLLM makes its renderer itself, by a name in its registry; `serve_with` puts this one in the place of
the one for Hugging Face tokenizers. Every endpoint that takes messages comes through here: the prompt
is the adapter's, what a user wrote stays text, and pictures are fetched under vlm-run's own policy.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from vllm.renderers.hf import HfRenderer

from vlm_run.engine.image_fetcher import Fetcher
from vlm_run.engine.renderer import Renderer
from vlm_run.engine.rendering_front import RenderingFront
from vlm_run.engine.vllm_internals import replace_hf_renderer
from vlm_run.errors import RequestError
from vlm_run.media import MediaPolicy
from vlm_run.prompts.conversation import Conversation
from vlm_run.request import PIXEL_BOUNDS
from vlm_run.server import metrics
from vlm_run.server.errors import refuse

if TYPE_CHECKING:
    from vllm.config import VllmConfig

    from vlm_run.adapter import Adapter
    from vlm_run.engine.renderer_pool import RendererPool


@dataclass(frozen=True, slots=True)
class Served:
    """What this process serves."""

    adapter: Adapter
    policy: MediaPolicy
    pool: RendererPool | None


_served: list[Served] = []


def serve_with(adapter: Adapter, policy: MediaPolicy, pool: RendererPool | None) -> None:
    """Let vLLM's next renderer in this process be the adapter's."""
    _served[:] = [Served(adapter, policy, pool)]
    replace_hf_renderer(AdapterRenderer)


class AdapterRenderer(HfRenderer):  # type: ignore[misc]
    """Renders chat messages with the adapter; everything else as vLLM does."""

    def __init__(self, config: VllmConfig, tokenizer: Any) -> None:
        super().__init__(config, tokenizer)
        (self._served,) = _served
        own = Renderer(self._served.adapter, self, self._served.policy)
        self._front = RenderingFront(own, self._served.pool)
        self._fetcher = Fetcher(self._served.policy, keep_bytes=0, timer=metrics.FETCH_SECONDS.time)

    async def render_chat_async(
        self,
        conversations: Sequence[list[Any]],
        chat_params: Any,
        tok_params: Any = None,
        *,
        prompt_extras: Mapping[str, Any] | None = None,
        skip_mm_cache: bool = False,
    ) -> tuple[list[list[dict[str, Any]]], list[Any]]:
        """vLLM's method of this name: conversations as vLLM keeps them, and the engine's inputs.

        Raises:
            Refusal: A conversation, one of its images or its length is at fault.
        """
        extras = dict(prompt_extras or {})
        try:
            _refuse_own_options(chat_params)
            bounds = _pixel_bounds(chat_params.mm_processor_kwargs or extras.get("mm_processor_kwargs") or {})
            parsed = [
                _conversation(messages, chat_params).with_pixel_bounds(**bounds) for messages in conversations
            ]
            inputs = await asyncio.gather(
                *(self._render(each, tok_params, extras.get("cache_salt")) for each in parsed)
            )
        except RequestError as error:
            raise refuse(error) from None
        return [_as_vllm_keeps_it(each) for each in parsed], list(inputs)

    async def _render(self, conversation: Conversation, tok_params: Any, cache_salt: str | None) -> Any:
        arrived = time.time()
        cut = None
        if tok_params is not None and tok_params.truncate_prompt_tokens is not None:
            cut = partial(_truncated, tok_params, self.tokenizer)
        has_images = bool(conversation.image_places())
        if cut is not None and has_images:
            raise RequestError("'truncate_prompt_tokens' cannot be used with images")
        rendered = await self._front.render(conversation, self._fetcher, cut=cut)
        if has_images:
            metrics.count_rendered(rendered)
        engine_input = rendered.engine_input
        engine_input["arrival_time"] = arrived
        if cache_salt is not None:
            engine_input["cache_salt"] = cache_salt
        return engine_input


def _refuse_own_options(params: Any) -> None:
    """Refuse what would render a prompt in another way than the adapter's."""
    if params.chat_template is not None:
        raise RequestError(
            "'chat_template' cannot be given in a request", hint="Start the server with --chat-template."
        )
    options = params.chat_template_kwargs
    if not (options.get("add_generation_prompt", True) or options.get("continue_final_message")):
        raise RequestError("'add_generation_prompt' cannot be false unless 'continue_final_message' is true")


def _pixel_bounds(processor_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The bounds on the area of a request's images, all that it may tell vLLM's processor."""
    for name in processor_kwargs:
        if name not in PIXEL_BOUNDS:
            raise RequestError(
                f"'{name}' in 'mm_processor_kwargs' cannot be given in a request",
                hint=f"Known: {', '.join(PIXEL_BOUNDS)}. Others: `-- --mm-processor-kwargs` at the start.",
            )
    return dict(processor_kwargs)


def _conversation(messages: Sequence[Mapping[str, Any]], params: Any) -> Conversation:
    options = params.chat_template_kwargs
    return Conversation.from_messages(
        [_without_tags(message) for message in messages],
        tools=options.get("tools"),
        continued=bool(options.get("continue_final_message")),
    )


def _without_tags(message: Any) -> Any:
    """A message whose text is text: shorthands are read where a request comes in, and only there."""
    if not isinstance(message, Mapping):  # one of OpenAI's Harmony format, which vLLM takes for gpt-oss
        return message
    content = message.get("content")
    if isinstance(content, str):
        return {**message, "content": [{"type": "text", "text": content}]} if content else message
    # pydantic hands lists on as iterators that can be read once.
    return message if content is None else {**message, "content": list(content)}


def _as_vllm_keeps_it(conversation: Conversation) -> list[dict[str, Any]]:
    return [{"role": message.role, "content": message.written} for message in conversation.messages]


def _truncated(tok_params: Any, tokenizer: Any, ids: list[int]) -> list[int]:
    cut: list[int] = tok_params.apply_post_tokenization(tokenizer, {"prompt_token_ids": ids})[
        "prompt_token_ids"
    ]
    return cut
