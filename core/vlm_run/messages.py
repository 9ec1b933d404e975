"""Messages in OpenAI's shape, and ms-swift's shorthands for the images in them.

Pure data: nothing is fetched or decoded here. Where a user may write a tag in place of an image:

- `<image>` stands for the next entry of `images`, `<img>SOURCE</img>` brings its own source.
- In `query` and `history` both are read. In `messages`, string content alone is read, `<image>`
  only if `images` is given beside the messages. What stands in a list of parts is never read:
  there, text is text.
- Only what a user says is read, never a system message or an answer.
- One newline right behind a tag belongs to the tag; the chat template writes its own.

`images` without `<image>` tags: as many entries as the user has turns are given to the turns in
order, None for a turn without an image; otherwise all go to the last turn. Images stand before
the text of their turn.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from vlm_run.errors import ConversationError

if TYPE_CHECKING:
    from PIL import Image as PILImage

ImageSource: TypeAlias = "str | bytes | Path | PILImage.Image"
"""A URL, a path, base64 text, a data URI, encoded bytes, or a decoded picture."""

ROLES = ("system", "user", "assistant", "tool")
_ALIASES = {"developer": "system"}  # OpenAI's newer name
# What OpenAI's messages carry beside role and content, for the templates that know it.
_FIELDS = ("name", "tool_calls", "tool_call_id")

_TAG = re.compile(r"(?P<image><image>)\n?|<img>(?P<source>.*?)</img>\n?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of text."""

    text: str


@dataclass(frozen=True, slots=True)
class Image:
    """An image, not looked at yet."""

    source: ImageSource


Part: TypeAlias = Text | Image


@dataclass(frozen=True, slots=True)
class Message:
    """What one side says.

    Attributes:
        role: `system`, `user`, `assistant` or `tool`.
        parts: Text and images in order.
        written: The text as the user wrote it, with its tags.
        fields: `name`, `tool_calls` and `tool_call_id`, where OpenAI's message has them.
    """

    role: str
    parts: tuple[Part, ...]
    written: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)


def with_image_parts(
    messages: Sequence[Mapping[str, Any]],
    images: Sequence[ImageSource | None] | ImageSource | None = None,
) -> list[dict[str, Any]]:
    """OpenAI-style messages without shorthands: every tag and every entry of `images` is a part.

    >>> with_image_parts([{"role": "user", "content": "<img>a.png</img>What is this?"}])[0]["content"]
    [{'type': 'image_url', 'image_url': {'url': 'a.png'}}, {'type': 'text', 'text': 'What is this?'}]

    Raises:
        ConversationError: Something is malformed, or tags and images do not match.
    """
    parsed = parse_messages(messages, images)
    return [
        {**message, "content": [_as_openai(part) for part in done.parts]}
        if any(isinstance(part, Image) for part in done.parts)
        else dict(message)
        for message, done in zip(messages, parsed, strict=True)
    ]


def _as_openai(part: Part) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    return {"type": "image_url", "image_url": {"url": part.source}}


def parse_messages(
    messages: Iterable[Mapping[str, Any]], images: Sequence[ImageSource | None] | ImageSource | None
) -> list[Message]:
    """Messages of OpenAI's shape, with every image at its place.

    Args:
        messages: As for `Conversation.from_messages`.
        images: As for `Conversation.from_messages`.

    Raises:
        ConversationError: Something is malformed, or tags and images do not match.
    """
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Iterable):
        raise ConversationError("'messages' must be a list of messages")
    read_image_tags = images is not None
    parsed = [_message(index, message, read_image_tags) for index, message in enumerate(messages)]
    if images is None:
        images = []
    elif not isinstance(images, (list, tuple)):
        images = [images]  # type: ignore[list-item]
    if not parsed:
        raise ConversationError("the conversation has no message")
    if any(part.source is _SLOT for message in parsed for part in message.parts if isinstance(part, Image)):
        return _fill_slots(parsed, images)
    return _give_to_turns(parsed, images)


def _message(index: int, message: Mapping[str, Any], read_image_tags: bool) -> Message:
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
        raise ConversationError(f"a message of role '{role}' cannot hold images", message_index=index)
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
    return Image(source)


def text_parts(content: str) -> list[Part]:
    """Text as the only part, or none if it is empty."""
    return [Text(content)] if content else []


class _Slot:
    """The place of an `<image>` tag until its image is known."""


_SLOT: Any = _Slot()


def _read_tags(content: str, read_image_tags: bool, index: int) -> list[Part]:
    parts: list[Part] = []
    position = 0
    for tag in _TAG.finditer(content):
        if tag["image"] and not read_image_tags:
            continue
        parts += text_parts(content[position : tag.start()])
        position = tag.end()
        if tag["image"]:
            parts.append(Image(_SLOT))
            continue
        source = tag["source"].strip()
        if not source:
            raise ConversationError("an <img></img> tag names no image", message_index=index)
        parts.append(Image(source))
    return parts + text_parts(content[position:])


def _fill_slots(messages: list[Message], images: Sequence[ImageSource | None]) -> list[Message]:
    """The messages with the k-th `<image>` tag turned into the k-th image that is not None."""
    given = [image for image in images if image is not None]
    used = 0
    filled = []
    for index, message in enumerate(messages):
        parts: list[Part] = []
        for part in message.parts:
            if not (isinstance(part, Image) and part.source is _SLOT):
                parts.append(part)
                continue
            if used == len(given):
                tags = sum(
                    isinstance(other, Image) and other.source is _SLOT
                    for each in messages
                    for other in each.parts
                )
                raise ConversationError(
                    f"<image> tag {used + 1} of {tags} has no image: {len(given)} given",
                    hint="Give one image for each tag.",
                    message_index=index,
                )
            parts.append(Image(given[used]))
            used += 1
        filled.append(replace(message, parts=tuple(parts)))
    if used < len(given):
        raise ConversationError(
            f"{len(given)} images are given, but the text has {used} <image> tag{'s' if used != 1 else ''}",
            hint="Give one image for each tag, or write no tags.",
            image_index=used,
        )
    return filled


def _give_to_turns(messages: list[Message], images: Sequence[ImageSource | None]) -> list[Message]:
    """The messages with images put before the text of the turns they belong to."""
    turns = [index for index, message in enumerate(messages) if message.role == "user"]
    if images and not turns:
        raise ConversationError("images are given, but no message of a user")
    if len(images) == len(turns):
        owners = turns
    elif None in images:
        raise ConversationError(
            f"'images' has {len(images)} entries, None among them, for {len(turns)} user turns",
            hint="With None, give one entry for each turn.",
        )
    else:
        owners = [turns[-1]] * len(images)
    added: dict[int, list[Part]] = {}
    for owner, image in zip(owners, images, strict=True):
        if image is not None:
            added.setdefault(owner, []).append(Image(image))
    return [
        replace(message, parts=(*added.get(index, []), *message.parts))
        for index, message in enumerate(messages)
    ]
