"""The conversations on which a plugin's prompts are checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlm_run.prompts.conversation import Conversation, Text

IMAGE = {"type": "image", "image": "image.png"}
"""An image part of a message. Rendering a prompt does not load it."""

# Each text differs from the others and from anything that a template writes.
_QUESTION = "Which colours do the seven sheep have?"
_EARLIER = "Where was the lighthouse built?"
_ANSWER = "On a rock, off the western shore."
_SYSTEM = "Speak as a patient botanist would."
_BEFORE, _BETWEEN = "Compare the harbour", "with the orchard"


def user(*parts: str | Mapping[str, Any]) -> dict[str, Any]:
    """A user message of texts and `IMAGE`s."""
    return _message("user", *parts)


def assistant(text: str) -> dict[str, Any]:
    """An answer of the model."""
    return _message("assistant", text)


def system(text: str) -> dict[str, Any]:
    """A system message."""
    return _message("system", text)


def _message(role: str, *parts: str | Mapping[str, Any]) -> dict[str, Any]:
    return {
        "role": role,
        "content": [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts],
    }


ONE_IMAGE = "one image"
"""The only conversation that no model type may refuse."""

CONVERSATIONS: dict[str, Conversation] = {
    name: Conversation.from_messages(messages)
    for name, messages in {
        "text only": [user(_QUESTION)],
        ONE_IMAGE: [user(IMAGE, _QUESTION)],
        "an image alone": [user(IMAGE)],
        "several images": [user(IMAGE, IMAGE, IMAGE, _QUESTION)],
        "images between texts": [user(_BEFORE, IMAGE, _BETWEEN, IMAGE)],
        "system message": [system(_SYSTEM), user(IMAGE, _QUESTION)],
        "history": [user(_EARLIER), assistant(_ANSWER), user(IMAGE, _QUESTION)],
        "image in an earlier turn": [user(IMAGE, _EARLIER), assistant(_ANSWER), user(_QUESTION)],
        "images in both turns": [
            system(_SYSTEM),
            user(IMAGE, _EARLIER),
            assistant(_ANSWER),
            user(IMAGE, IMAGE, _QUESTION),
        ],
    }.items()
}
"""Conversations by their description."""


def with_text_inside(text: str) -> dict[str, Conversation]:
    """Conversations with `text` in a user message, in an answer and in a system message."""
    inside = f"Before {text} and after"
    return {
        "a question": Conversation.from_messages([user(IMAGE, inside)]),
        "an earlier turn": Conversation.from_messages(
            [user(inside), assistant(inside), user(IMAGE, _QUESTION)]
        ),
        "a system message": Conversation.from_messages([system(inside), user(IMAGE, _QUESTION)]),
    }


def texts(conversation: Conversation, *roles: str) -> list[str]:
    """The texts of the messages of the given roles, in order."""
    return [
        part.text
        for message in conversation.messages
        if message.role in roles
        for part in message.parts
        if isinstance(part, Text)
    ]
