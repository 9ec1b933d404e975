"""Puts images and videos that are given beside the messages into their places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from vlm_run.errors import ConversationError
from vlm_run.prompts.message import Image, Kind, Message, Part, Slot, Video


@dataclass(frozen=True, slots=True)
class _Words:
    """How errors name what is placed."""

    one: str
    several: str
    tag: str


_WORDS: dict[Any, _Words] = {
    Image: _Words("image", "images", "<image>"),
    Video: _Words("video", "videos", "<video>"),
}


def placed(messages: list[Message], kind: Kind, given: Any) -> list[Message]:
    """The messages with every image, or every video, in its place.

    Args:
        messages: The messages, in which tags have become slots.
        kind: What is placed.
        given: One source, a list of sources, in which None means none for that turn, or None.

    Raises:
        ConversationError: Tags and sources do not match.
    """
    sources = [] if given is None else list(given) if isinstance(given, (list, tuple)) else [given]
    if any(_is_slot(part, kind) for message in messages for part in message.parts):
        return _fill_slots(messages, kind, sources)
    return _give_to_turns(messages, kind, sources)


def _is_slot(part: Part, kind: Kind) -> bool:
    return isinstance(part, kind) and isinstance(part.source, Slot)


def _fill_slots(messages: list[Message], kind: Kind, sources: Sequence[Any]) -> list[Message]:
    """Give the sources that are not None to the slots, in order or by the indices that all slots name."""
    words = _WORDS[kind]
    given = [source for source in sources if source is not None]
    slots = [
        (index, cast("Image | Video", part))
        for index, message in enumerate(messages)
        for part in message.parts
        if _is_slot(part, kind)
    ]
    if len(slots) > len(given):
        raise ConversationError(
            f"{words.tag} tag {len(given) + 1} of {len(slots)} has no {words.one}: {len(given)} given",
            hint=f"Give one {words.one} for each tag.",
            message_index=slots[len(given)][0],
        )
    if len(slots) < len(given):
        raise ConversationError(
            f"{len(given)} {words.several} are given, but the text has {len(slots)} {words.tag} "
            f"tag{'s' if len(slots) != 1 else ''}",
            hint=f"Give one {words.one} for each tag, or write no tags.",
            **{f"{words.one}_index": len(slots)},
        )
    indices = [cast(Slot, slot.source).index for _, slot in slots]
    if all(type(index) is int for index in indices) and sorted(indices) == list(range(len(given))):
        given = [given[index] for index in indices]
    ordered = iter(given)
    return [
        replace(
            message,
            parts=tuple(
                replace(cast("Image | Video", part), source=next(ordered)) if _is_slot(part, kind) else part
                for part in message.parts
            ),
        )
        for message in messages
    ]


def _give_to_turns(messages: list[Message], kind: Kind, sources: Sequence[Any]) -> list[Message]:
    """The messages with each source inserted before the text of its turn."""
    words = _WORDS[kind]
    turns = [index for index, message in enumerate(messages) if message.role == "user"]
    if sources and not turns:
        raise ConversationError(f"{words.several} are given, but there is no user message")
    if len(sources) == len(turns):
        owners = turns
    elif None in sources:
        raise ConversationError(
            f"'{words.several}' has {len(sources)} entries, None among them, for {len(turns)} user turns",
            hint="With None, give one entry for each turn.",
        )
    else:
        owners = [turns[-1]] * len(sources)
    added: dict[int, list[Part]] = {}
    for owner, source in zip(owners, sources, strict=True):
        if source is not None:
            added.setdefault(owner, []).append(kind(source))
    return [
        replace(message, parts=(*added.get(index, []), *message.parts))
        for index, message in enumerate(messages)
    ]
