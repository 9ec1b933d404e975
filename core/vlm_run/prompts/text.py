"""Text that a tokenizer accepts: everything that can be encoded in UTF-8."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlm_run.errors import ConversationError


def check_encodable(value: Any, place: str, message_index: int | None = None) -> None:
    """Check that all strings in a value, including keys, can be encoded in UTF-8.

    JSON escapes such as "\\ud83d" and undecodable bytes on a command line make strings with lone
    surrogates, halves of a character that no encoding of Unicode allows.

    Args:
        value: A string, or a value as JSON knows it.
        place: What the value is, for the error.
        message_index: The message that the value belongs to, for the error.

    Raises:
        ConversationError: A string has a lone surrogate.
    """
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            if not item.isascii():
                _check_string(item, place, message_index)
        elif isinstance(item, Mapping):
            pending += [*item.keys(), *item.values()]
        elif isinstance(item, (list, tuple)):
            pending += item


def _check_string(text: str, place: str, message_index: int | None) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        if 0xDC80 <= code <= 0xDCFF:  # how Python keeps a byte that it could not decode
            raise ConversationError(
                f"{place} has the byte 0x{code - 0xDC00:02X} at character {error.start + 1}, "
                "which is not valid UTF-8",
                hint="Encode the text in UTF-8.",
                message_index=message_index,
            ) from None
        raise ConversationError(
            f"{place} has half a character, the lone surrogate U+{code:04X}, at character {error.start + 1}",
            hint="Cut text between characters, and write both halves of an emoji's JSON escape.",
            message_index=message_index,
        ) from None
