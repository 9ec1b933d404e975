"""Lists of messages in OpenAI's and LLaVA's form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vlm_run.errors import ConversationError
from vlm_run.prompts.message import is_empty_image

_LLAVA_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}


def read_messages(turns: Any, name: str, system: Any) -> list[Any]:
    """Return messages in OpenAI's form, with a system message if they have none.

    Args:
        turns: Messages in OpenAI's or LLaVA's form.
        name: The name of their column, for errors.
        system: The system message; None for none.

    Raises:
        ConversationError: They are not a list of messages.
    """
    if not isinstance(turns, Sequence) or isinstance(turns, (str, bytes)) or not turns:
        raise ConversationError(f"'{name}' must be a list of messages")
    messages = [_from_llava(turn) for turn in turns]
    first = messages[0]
    has_system = isinstance(first, Mapping) and first.get("role") in ("system", "developer")
    if system is not None and not has_system:
        messages.insert(0, {"role": "system", "content": system})
    return messages


def name_images(messages: list[Any]) -> bool:
    """Whether messages name images of their own, of which a column of images is then a copy."""
    return any(
        part.get("type") in ("image", "image_url", "input_image")
        for message in messages
        if isinstance(message, Mapping) and isinstance(message.get("content"), (list, tuple))
        for part in message["content"]
        if isinstance(part, Mapping) and not is_empty_image(part)
    )


def _from_llava(turn: Any) -> Any:
    if not isinstance(turn, Mapping) or "from" not in turn:
        return turn
    role = turn["from"]
    return {
        "role": _LLAVA_ROLES.get(role, role) if isinstance(role, str) else role,
        "content": turn.get("value"),
    }
