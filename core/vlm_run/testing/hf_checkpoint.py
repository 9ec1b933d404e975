"""What a checkpoint folder brings of its own: its tokenizer and its chat template, by transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from vlm_run.errors import EngineError
from vlm_run.prompts.conversation import Conversation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Template: TypeAlias = Callable[[Conversation], "str | None"]
"""A prompt for a conversation, None where the template does not take it."""


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The checkpoint's tokenizer.

    Raises:
        EngineError: There is none that transformers can load.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise EngineError(f"transformers cannot load the tokenizer of {folder}: {error}") from error


def chat_template(folder: Path) -> Template | None:
    """The checkpoint's chat template, of its processor or its tokenizer; None if it has none."""
    owner = _processor(folder)
    if owner is None or not getattr(owner, "chat_template", None):
        owner = load_tokenizer(folder)
    if not getattr(owner, "chat_template", None):
        return None

    def render(conversation: Conversation) -> str | None:
        messages = conversation.template_messages()
        prompt = _apply(owner, messages)
        if prompt is not None and _holds_texts(prompt, messages):
            return prompt
        # A template for text alone takes content that is a string.
        if conversation.images:
            return None
        return _apply(owner, [{**message, "content": _joined(message)} for message in messages])

    return render


def _processor(folder: Path) -> Any:
    from transformers import AutoProcessor

    try:
        return AutoProcessor.from_pretrained(folder, local_files_only=True)
    except Exception:  # the tokenizer may still have a template
        return None


def _apply(owner: Any, messages: list[dict[str, Any]]) -> str | None:
    try:
        prompt: str = owner.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception:  # templates refuse by raising what they like
        return None
    return prompt


def _holds_texts(prompt: str, messages: list[dict[str, Any]]) -> bool:
    # One that knows strings alone writes the list out as Python does.
    return "'type'" not in prompt and all(
        part["text"] in prompt
        for message in messages
        for part in message["content"]
        if part["type"] == "text"
    )


def _joined(message: dict[str, Any]) -> str:
    return "".join(part["text"] for part in message["content"])
