"""The reference answers of a row, which metrics compare with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any


def read_reference(value: Any) -> str | list[str] | None:
    """Read a reference: text, a list of alternative texts, a message, or messages that end with one.

    Text stays as it is, even if it looks like JSON.

    >>> read_reference("[10, 20]")
    '[10, 20]'
    >>> read_reference(["4", "four"])
    ['4', 'four']
    >>> read_reference([{"role": "assistant", "content": "4"}])
    '4'
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return _message_text(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        items = [item for item in value if item is not None]
        if items and all(isinstance(item, Mapping) for item in items):
            return _message_text(items[-1] if "content" in items[-1] else {"content": items})
        return [_text(item) for item in items] or None
    return _text(value)


def _message_text(message: Mapping[str, Any]) -> str | None:
    """Return the text of a message's content."""
    if "content" not in message:
        return _text(message.get("text", message))
    content = message["content"]
    if isinstance(content, (list, tuple)):
        texts = [part.get("text") if isinstance(part, Mapping) else part for part in content]
        return "".join(_text(text) for text in texts if text is not None) or None
    return None if content is None else _text(content)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return (
        json.dumps(value, ensure_ascii=False, default=str)
        if isinstance(value, (Mapping, list))
        else str(value)
    )
