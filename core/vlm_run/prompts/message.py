"""One message of a conversation: its text and images, parsed but not fetched."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from vlm_run.errors import ConversationError
from vlm_run.media.source import ImageSource

ROLES = ("system", "user", "assistant", "tool")
_ALIASES = {"developer": "system"}  # OpenAI's newer name
# Other fields of OpenAI's messages, which some chat templates use.
_FIELDS = ("name", "tool_calls", "tool_call_id")

_TAG = re.compile(r"(?P<image><image>)\n?|<img>(?P<source>.*?)</img>\n?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of text."""

    text: str


@dataclass(frozen=True, slots=True)
class Image:
    """An image of a message, which is not loaded yet.

    Attributes:
        source: A URL, a path, base64 text, a data URI, encoded bytes, or a decoded image.
        min_pixels: Minimum area in pixels; None uses the engine's bound.
        max_pixels: Maximum area in pixels; None uses the engine's bound.
    """

    source: ImageSource
    min_pixels: int | None = None
    max_pixels: int | None = None


Part: TypeAlias = Text | Image


@dataclass(frozen=True, slots=True)
class Message:
    """One message.

    Attributes:
        role: `system`, `user`, `assistant` or `tool`.
        parts: Text and images in order.
        written: The text as the user wrote it, including tags.
        fields: `name`, `tool_calls` and `tool_call_id`, as far as the message has them.
    """

    role: str
    parts: tuple[Part, ...]
    written: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)


def read_message(index: int, message: Mapping[str, Any], read_image_tags: bool) -> Message:
    """Parse a message in OpenAI's form; its `<image>` tags become slots to fill.

    Args:
        index: Index of the message in the conversation, for errors.
        message: A mapping with `role` and `content`.
        read_image_tags: Whether `<image>` is a tag if the content is a string.

    Raises:
        ConversationError: The message is malformed.
    """
    if not isinstance(message, Mapping) or "role" not in message:
        raise ConversationError("a message needs 'role' and 'content'", message_index=index)
    role, content = message["role"], message.get("content")
    role = _ALIASES.get(role, role) if isinstance(role, str) else role
    if role not in ROLES:
        raise ConversationError(
            f"unknown role {role!r}", hint=f"Known: {', '.join(ROLES)}.", message_index=index
        )
    fields = {name: message[name] for name in _FIELDS if message.get(name) is not None}
    if content is None and "tool_calls" in fields:
        content = ""
    if isinstance(content, str):
        parts = _read_tags(content, read_image_tags, index) if role == "user" else text_parts(content)
        return Message(role, tuple(parts), content, fields)
    if isinstance(content, (bytes, Mapping)) or not isinstance(content, Sequence):
        raise ConversationError("'content' must be a string or a list of parts", message_index=index)
    parts = [_part(index, number, part) for number, part in enumerate(content, 1)]
    if role != "user" and any(isinstance(part, Image) for part in parts):
        raise ConversationError(f"a message of role '{role}' cannot contain images", message_index=index)
    written = "".join(part.text for part in parts if isinstance(part, Text))
    return Message(role, tuple(parts), written, fields)


def _part(index: int, number: int, part: Any) -> Part:
    if isinstance(part, str):
        return Text(part)
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind in ("text", "input_text") and isinstance(part.get("text"), str):
        return Text(part["text"])
    if kind in ("image_url", "input_image"):
        source = part.get("image_url")
        source = source.get("url") if isinstance(source, Mapping) else source
    elif kind == "image":
        source = next((part[key] for key in ("image", "url", "path", "base64") if key in part), None)
    else:
        raise ConversationError(
            f"part {number} has the unknown type {kind!r}" if kind else f"part {number} has no type",
            hint="Known: text, image_url, image.",
            message_index=index,
        )
    if source is None:
        raise ConversationError(f"part {number} of type '{kind}' has no image", message_index=index)
    bounds = part.get("min_pixels"), part.get("max_pixels")
    check_bounds(*bounds, f"part {number}", message_index=index)
    return Image(source, *bounds)


def check_bounds(low: Any, high: Any, what: str, message_index: int | None = None) -> None:
    """Raise `ConversationError` unless `low` and `high` are valid bounds on an area; None is no bound."""
    for name, value in (("min_pixels", low), ("max_pixels", high)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise ConversationError(
                f"'{name}' of {what} is not an area in pixels: {value!r}", message_index=message_index
            )
    if low is not None and high is not None and low > high:
        raise ConversationError(
            f"'min_pixels' of {what}, {low}, is greater than its 'max_pixels', {high}",
            message_index=message_index,
        )


def text_parts(content: str) -> list[Part]:
    """The parts of text-only content; none if it is empty."""
    return [Text(content)] if content else []


class Slot:
    """Stands in for the source of an `<image>` tag until its image is known."""


SLOT: Any = Slot()


def _read_tags(content: str, read_image_tags: bool, index: int) -> list[Part]:
    parts: list[Part] = []
    position = 0
    for tag in _TAG.finditer(content):
        if tag["image"] and not read_image_tags:
            continue
        parts += text_parts(content[position : tag.start()])
        position = tag.end()
        if tag["image"]:
            parts.append(Image(SLOT))
            continue
        source = tag["source"].strip()
        if not source:
            raise ConversationError("an <img></img> tag names no image", message_index=index)
        parts.append(Image(source))
    return parts + text_parts(content[position:])
