"""One message of a conversation: its text, images and videos, parsed but not fetched."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

from vlm_run.errors import ConversationError
from vlm_run.media.source import SOURCE_KEYS, ImageSource, VideoSource, source_in, trimmed
from vlm_run.prompts.frames import read_selection, read_video_source
from vlm_run.prompts.text import check_encodable
from vlm_run.video import FrameSelection

ROLES = ("system", "user", "assistant", "tool")
_ALIASES = {"developer": "system"}  # OpenAI's newer name
# Other fields of OpenAI's messages, which some chat templates use.
_FIELDS = ("name", "tool_calls", "tool_call_id")
# A template may leave the images of a tool out; `Adapter.render_prompt` refuses them then.
_ROLES_WITH_IMAGES = ("user", "tool")
# The types of parts, and the keys that hold their content.
_TEXT_KEYS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
_IMAGE_KEYS = {
    "image": ("image", *SOURCE_KEYS),
    "image_url": ("image_url",),
    "input_image": ("image_url",),
}
_VIDEO_KEYS = {
    "video": ("video", "frames", *SOURCE_KEYS),
    "video_url": ("video_url",),
}
# An image part in which each of these is missing or null stands for an image given beside the messages.
_SLOT_KEYS = (*_IMAGE_KEYS["image"], "image_url", "input_image", "image_file", "file_id", "data", "source")

_TAG = re.compile(
    r"(?P<image><image>)\n?|<img>(?P<source>.*?)</img>\n?"
    # A source has no line break and no other tag in it.
    r"|<video>(?P<video>[^\n<>]+)</video>\n?|(?P<slot><video>)\n?",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of text."""

    text: str


@dataclass(frozen=True, slots=True)
class Image:
    """An image of a message, which is not loaded yet.

    Attributes:
        source: A URL, a path, base64 text, a data URI, encoded bytes, or a decoded image. White space around
            a text is removed.
        min_pixels: Minimum area in pixels; None uses the engine's bound.
        max_pixels: Maximum area in pixels; None uses the engine's bound.
    """

    source: ImageSource
    min_pixels: int | None = None
    max_pixels: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", trimmed(self.source))


@dataclass(frozen=True, slots=True)
class Video:
    """A video of a message, which is not loaded yet.

    Attributes:
        source: A URL, a path, base64 text, a data URI, encoded bytes, or frames.
        selection: Which frames the model sees.
    """

    source: VideoSource
    selection: FrameSelection = field(default_factory=FrameSelection)

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", trimmed(self.source))


Part: TypeAlias = Text | Image | Video
Kind: TypeAlias = "type[Image] | type[Video]"


@dataclass(frozen=True, slots=True)
class Message:
    """One message.

    Attributes:
        role: `system`, `user`, `assistant` or `tool`.
        parts: Text, images and videos in order.
        written: The text as the user wrote it, including tags.
        fields: `name`, `tool_calls` and `tool_call_id`, as far as the message has them.
    """

    role: str
    parts: tuple[Part, ...]
    written: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)


def read_message(index: int, message: Mapping[str, Any], read_tags: frozenset[Kind]) -> Message:
    """Read a message in OpenAI's form; images and videos that are given beside the messages become slots.

    Args:
        index: The message's index in the conversation, for errors.
        message: A mapping with `role` and `content`.
        read_tags: Whether images and videos are given beside the messages, so that `<image>` or `<video>`
            in a string and a part without a source stand for one of them.

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
    for name, value in fields.items():
        check_encodable(value, f"'{name}'", index)
    if content is None and role == "assistant":  # one that only called tools, or was cut off at once
        content = ""
    if isinstance(content, str):
        check_encodable(content, "the text", index)
        parts = _read_tags(content, read_tags, index) if role == "user" else text_parts(content)
        return Message(role, tuple(parts), content, fields)
    if isinstance(content, (bytes, Mapping)) or not isinstance(content, Sequence):
        raise ConversationError("'content' must be a string or a list of parts", message_index=index)
    parts = [
        read
        for number, part in enumerate(content, 1)
        if (read := _read_part(part, role, read_tags, index, number)) is not None
    ]
    if role not in _ROLES_WITH_IMAGES and any(isinstance(part, Image) for part in parts):
        raise ConversationError(f"a message of role '{role}' cannot contain images", message_index=index)
    if role != "user" and any(isinstance(part, Video) for part in parts):
        raise ConversationError(f"a message of role '{role}' cannot contain videos", message_index=index)
    written = "".join(part.text for part in parts if isinstance(part, Text))
    return Message(role, tuple(parts), written, fields)


def _read_part(part: Any, role: str, read_slots: frozenset[Kind], index: int, number: int) -> Part | None:
    """Read a part; None for one that is not part of the prompt."""
    if isinstance(part, str):
        check_encodable(part, "the text", index)
        return Text(part)
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "thinking" and role == "assistant":
        return None  # the reasoning behind an earlier answer
    if not isinstance(kind, str) or kind not in {*_TEXT_KEYS, *_IMAGE_KEYS, *_VIDEO_KEYS}:
        raise ConversationError(
            f"part {number} has the unknown type {kind!r}" if kind else f"part {number} has no type",
            hint="Known: text, image_url, image, video_url, video.",
            message_index=index,
        )
    if kind in _TEXT_KEYS:
        text = part.get(_TEXT_KEYS[kind])
        if not isinstance(text, str):
            raise ConversationError(
                f"'{_TEXT_KEYS[kind]}' of part {number} must be a string", message_index=index
            )
        check_encodable(text, "the text", index)
        return Text(text)
    if kind in _VIDEO_KEYS:
        selection = read_selection(part, f"part {number}", message_index=index)
        source = _read_source(part, _VIDEO_KEYS[kind])
        if source is not None:
            return Video(read_video_source(source, part, f"part {number}", index), selection)
        if Video in read_slots and kind == "video":
            return Video(cast(Any, Slot(part.get("index"))), selection)
        raise ConversationError(f"part {number} of type '{kind}' has no video", message_index=index)
    bounds = read_bounds(
        part.get("min_pixels"), part.get("max_pixels"), f"part {number}", message_index=index
    )
    source = _read_source(part, _IMAGE_KEYS[kind])
    if source is not None:
        return Image(source, *bounds)
    if Image in read_slots and kind == "image" and is_empty_image(part):
        return Image(cast(Any, Slot(part.get("index"))), *bounds)
    raise ConversationError(f"part {number} of type '{kind}' has no image", message_index=index)


def is_empty_image(part: Mapping[str, Any]) -> bool:
    """Whether an image part stands for an image that is given beside the messages.

    That is, it is of type `image`, as in Hugging Face's messages, and no key that could hold a source
    has a value; keys such as `text` and `index`, which datasets add, may have one.
    """
    return part.get("type") == "image" and all(part.get(key) is None for key in _SLOT_KEYS)


def _read_source(part: Mapping[str, Any], keys: Sequence[str]) -> Any:
    """Return the source of an image or a video part; None if it has none."""
    # It may be in an object, as OpenAI nests it and as `datasets` writes images.
    return source_in(next((part[key] for key in keys if part.get(key) is not None), None))


def read_bounds(
    low: Any, high: Any, what: str, message_index: int | None = None
) -> tuple[int | None, int | None]:
    """Read bounds on the area of an image.

    Args:
        low: `min_pixels`; None for no bound. A float is accepted if it is a whole number.
        high: `max_pixels`, likewise.
        what: What they bound, for errors.
        message_index: The message that they belong to, for errors.

    Returns:
        The bounds in pixels.

    Raises:
        ConversationError: One is not an area, or the lower bound is above the upper one.
    """
    areas: list[int | None] = []
    for name, value in (("min_pixels", low), ("max_pixels", high)):
        area = int(value) if isinstance(value, float) and value.is_integer() else value
        if area is not None and (not isinstance(area, int) or isinstance(area, bool) or area < 1):
            raise ConversationError(
                f"'{name}' of {what} is not an area in pixels: {value!r}", message_index=message_index
            )
        areas.append(area)
    low, high = areas
    if low is not None and high is not None and low > high:
        raise ConversationError(
            f"'min_pixels' of {what}, {low}, is greater than its 'max_pixels', {high}",
            message_index=message_index,
        )
    return low, high


def text_parts(content: str) -> list[Part]:
    """The parts of text-only content; none if it is empty."""
    return [Text(content)] if content else []


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of an image or a video that is given beside the messages.

    Attributes:
        index: Its index, if the part names one.
    """

    index: Any = None


def _read_tags(content: str, read_tags: frozenset[Kind], index: int) -> list[Part]:
    parts: list[Part] = []
    position = 0
    for tag in _TAG.finditer(content):
        if (tag["image"] and Image not in read_tags) or (tag["slot"] and Video not in read_tags):
            continue
        parts += text_parts(content[position : tag.start()])
        position = tag.end()
        if tag["image"]:
            parts.append(Image(cast(Any, Slot())))
            continue
        if tag["slot"]:
            parts.append(Video(cast(Any, Slot())))
            continue
        if tag["video"]:
            parts.append(Video(read_video_source(tag["video"], {}, "the text", index)))
            continue
        image = Image(tag["source"])
        if not image.source:
            raise ConversationError("an <img></img> tag names no image", message_index=index)
        parts.append(image)
    return parts + text_parts(content[position:])
