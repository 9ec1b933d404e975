"""The tokenizer and the chat template of a checkpoint directory, loaded by transformers."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from vlm_run.derivation.processor_facts import load_processor
from vlm_run.errors import EngineError
from vlm_run.prompts.conversation import Conversation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Template: TypeAlias = Callable[[Conversation], "str | None"]
"""Renders a conversation; returns None if the template does not accept it."""


@lru_cache(maxsize=8)
def load_tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    """The checkpoint's tokenizer, which the checks of its model types share.

    Raises:
        EngineError: transformers cannot load one from the directory.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise EngineError(f"transformers cannot load the tokenizer of {directory}: {error}") from error


def chat_template(directory: Path) -> Template | None:
    """The chat template of the checkpoint's processor or tokenizer; None if it has none."""
    owner = _processor(directory)
    if owner is None or not getattr(owner, "chat_template", None):
        owner = load_tokenizer(directory)
    if not getattr(owner, "chat_template", None):
        return None

    def render(conversation: Conversation) -> str | None:
        messages = conversation.template_messages()
        prompt = _apply(owner, messages)
        if prompt is not None and _holds_texts(prompt, messages):
            return prompt
        # A text-only template expects content to be a string.
        if conversation.images:
            return None
        return _apply(owner, [{**message, "content": _joined(message)} for message in messages])

    return render


def _processor(directory: Path) -> Any:
    try:
        return load_processor(str(directory))
    except Exception:  # the tokenizer may still have a template
        return None


def _apply(owner: Any, messages: list[dict[str, Any]]) -> str | None:
    try:
        prompt: str = owner.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception:  # templates refuse by raising arbitrary exceptions
        return None
    return prompt


def _holds_texts(prompt: str, messages: list[dict[str, Any]]) -> bool:
    # A template that only supports strings writes the list's `repr`.
    return "'type'" not in prompt and all(
        part["text"] in prompt
        for message in messages
        for part in message["content"]
        if part["type"] == "text"
    )


def _joined(message: dict[str, Any]) -> str:
    return "".join(part["text"] for part in message["content"])
