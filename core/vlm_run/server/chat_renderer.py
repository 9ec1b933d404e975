"""vLLM's renderer of chat messages, replaced by one that renders with the adapter.

vLLM creates its renderer by a name in its registry; `use_adapter_renderer` puts these in place of the ones
for Hugging Face's and Mistral's tokenizers. Every endpoint that accepts messages renders through it: the
adapter renders the prompt, users' text never becomes control tokens, and images are fetched under vlm-run's
policy.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, cast

from pydantic import ValidationError
from vllm.renderers.hf import HfRenderer
from vllm.renderers.mistral import MistralRenderer

from vlm_run.engine.image_fetcher import Fetcher
from vlm_run.engine.renderer import Renderer
from vlm_run.engine.rendering_front import RenderingFront
from vlm_run.engine.vllm_internals import replace_renderer
from vlm_run.errors import ConversationError, RequestError
from vlm_run.media import MediaPolicy
from vlm_run.prompts.conversation import Conversation
from vlm_run.request import read_pixel_bounds
from vlm_run.server import metrics
from vlm_run.server.error_responses import refuse
from vlm_run.server.validation_errors import describe

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.renderers import BaseRenderer

    from vlm_run.adapter import Adapter
    from vlm_run.engine.renderer_pool import RendererPool


TASK = "vlm_run_task"
"""The key of `chat_template_kwargs` under which the chat endpoint passes on a request's task."""
# Variables that vLLM adds to `chat_template_kwargs`, and that the adapter sets itself.
_OWN_VARIABLES = ("tools", "documents", "add_generation_prompt", "continue_final_message", TASK)


@dataclass(frozen=True, slots=True)
class Served:
    """The model and limits that this process serves.

    Attributes:
        adapter: The model.
        policy: Which images may be fetched, and how large they may be.
        pool: The renderer processes; None if requests are rendered in this process.
    """

    adapter: Adapter
    policy: MediaPolicy
    pool: RendererPool | None


class ConversationInput(dict[str, Any]):
    """The engine's input for a conversation whose answer is yet to begin, in vLLM's form."""


def use_adapter_renderer(adapter: Adapter, policy: MediaPolicy, pool: RendererPool | None) -> None:
    """Have vLLM render with the adapter, in every renderer that it creates in this process from now on."""
    RendersWithAdapter.served = Served(adapter, policy, pool)
    replace_renderer("hf", AdapterRenderer)
    replace_renderer("mistral", MistralAdapterRenderer)


class RendersWithAdapter:
    """Renders chat messages with the adapter; before one of vLLM's renderers among the bases of a class.

    Attributes:
        served: What the renderers of this process render with. vLLM creates them and knows nothing of it.
    """

    served: ClassVar[Served | None] = None
    tokenizer: Any

    def __init__(self, config: VllmConfig, tokenizer: Any) -> None:
        super().__init__(config, tokenizer)  # type: ignore[call-arg]
        assert self.served is not None
        own = Renderer(self.served.adapter, cast("BaseRenderer", self), self.served.policy)
        self._front = RenderingFront(own, self.served.pool)
        self._fetcher = Fetcher(self.served.policy, keep_bytes=0, timer=metrics.FETCH_SECONDS.time)

    async def render_chat_async(
        self,
        conversations: Sequence[list[Any]],
        chat_params: Any,
        tok_params: Any = None,
        *,
        prompt_extras: Mapping[str, Any] | None = None,
        skip_mm_cache: bool = False,
    ) -> tuple[list[list[dict[str, Any]]], list[Any]]:
        """Render conversations; overrides vLLM's method.

        Returns:
            The conversations in vLLM's form, and the engine's inputs.

        Raises:
            Refusal: A conversation, one of its images or its length is at fault.
        """
        extras = dict(prompt_extras or {})
        try:
            _refuse_own_options(chat_params)
            bounds = read_pixel_bounds(
                chat_params.mm_processor_kwargs or extras.get("mm_processor_kwargs"),
                "Others: `vlm-run serve … -- --mm-processor-kwargs`.",
            )
            parsed = [
                _conversation(messages, chat_params).with_pixel_bounds(**bounds) for messages in conversations
            ]
            inputs = await asyncio.gather(
                *(self._render(each, tok_params, extras.get("cache_salt")) for each in parsed)
            )
        except RequestError as error:
            raise refuse(error) from None
        return [_in_vllm_form(each) for each in parsed], list(inputs)

    async def _render(self, conversation: Conversation, tok_params: Any, cache_salt: str | None) -> Any:
        arrived = time.time()
        cut = None
        if tok_params is not None and tok_params.truncate_prompt_tokens is not None:
            cut = partial(_truncated, tok_params, self.tokenizer)
        has_media = bool(conversation.image_places() or conversation.video_places())
        if cut is not None and has_media:
            raise RequestError("'truncate_prompt_tokens' cannot be used with images or videos")
        rendered = await self._front.render(conversation, self._fetcher, cut=cut)
        if has_media:
            metrics.count_rendered(rendered)
        engine_input = rendered.engine_input
        if not conversation.continued:
            engine_input = ConversationInput(engine_input)
        engine_input["arrival_time"] = arrived
        if cache_salt is not None:
            engine_input["cache_salt"] = cache_salt
        return engine_input


class AdapterRenderer(RendersWithAdapter, HfRenderer):  # type: ignore[misc]
    """Renders chat messages with the adapter, and everything else as vLLM does."""


class MistralAdapterRenderer(RendersWithAdapter, MistralRenderer):  # type: ignore[misc]
    """The same where the checkpoint has mistral-common's tokenizer."""


def _refuse_own_options(params: Any) -> None:
    """Refuse options by which a request would change how the adapter renders its prompt."""
    if params.chat_template is not None:
        raise RequestError(
            "'chat_template' cannot be given in a request", hint="Start the server with --chat-template."
        )
    options = params.chat_template_kwargs
    if not (options.get("add_generation_prompt", True) or options.get("continue_final_message")):
        raise RequestError("'add_generation_prompt' cannot be false unless 'continue_final_message' is true")


def _conversation(messages: Sequence[Mapping[str, Any]], params: Any) -> Conversation:
    options = params.chat_template_kwargs
    conversation = Conversation.from_messages(
        [_without_tags(index, message) for index, message in enumerate(messages)],
        tools=options.get("tools"),
        continued=bool(options.get("continue_final_message")),
    )
    task = options.get(TASK)
    return replace(
        conversation,
        task=task if isinstance(task, str) else None,
        template_kwargs={name: value for name, value in options.items() if name not in _OWN_VARIABLES},
    )


def _without_tags(index: int, message: Any) -> Any:
    """The message with its text in a content part, where tags such as `<image>` are plain text.

    Only the chat endpoint reads such shorthands, when the request arrives.
    """
    if not isinstance(message, Mapping):  # of OpenAI's Harmony format, which vLLM accepts for gpt-oss
        return message
    content = message.get("content")
    if isinstance(content, str):
        return {**message, "content": [{"type": "text", "text": content}]} if content else message
    if content is None:
        return message
    try:
        # pydantic passes a list on as an iterator that validates its items, and can be read only once.
        return {**message, "content": list(content)}
    except ValidationError as error:
        errors = [{**each, "loc": ("content", *each["loc"])} for each in error.errors()]
        raise ConversationError(describe(errors)[0], message_index=index) from None


def _in_vllm_form(conversation: Conversation) -> list[dict[str, Any]]:
    return [{"role": message.role, "content": message.written} for message in conversation.messages]


def _truncated(tok_params: Any, tokenizer: Any, ids: list[int]) -> list[int]:
    cut: list[int] = tok_params.apply_post_tokenization(tokenizer, {"prompt_token_ids": ids})[
        "prompt_token_ids"
    ]
    return cut
