"""The conversations that a plugin's prompts are checked on."""

from __future__ import annotations

from typing import Any

from vlm_run.conversation import Conversation, Text

# Each text is unlike any other and unlike what a template writes.
_IMAGE = {"type": "image", "image": "picture.png"}
_QUESTION = "Which colours do the seven sheep have?"
_EARLIER = "Where was the lighthouse built?"
_ANSWER = "On a rock, off the western shore."
_SYSTEM = "Speak as a patient botanist would."
_BEFORE, _BETWEEN = "Compare the harbour", "with the orchard"


def _user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": [_text(part) if isinstance(part, str) else part for part in parts]}


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [_text(text)]}


def _system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": [_text(text)]}


ONE_IMAGE = "one image"
"""The one conversation that no model type may refuse."""

CONVERSATIONS: dict[str, Conversation] = {
    name: Conversation.from_messages(messages)
    for name, messages in {
        "text only": [_user(_QUESTION)],
        ONE_IMAGE: [_user(_IMAGE, _QUESTION)],
        "an image alone": [_user(_IMAGE)],
        "several images": [_user(_IMAGE, _IMAGE, _IMAGE, _QUESTION)],
        "images between texts": [_user(_BEFORE, _IMAGE, _BETWEEN, _IMAGE)],
        "system message": [_system(_SYSTEM), _user(_IMAGE, _QUESTION)],
        "history": [_user(_EARLIER), _assistant(_ANSWER), _user(_IMAGE, _QUESTION)],
        "image in an earlier turn": [_user(_IMAGE, _EARLIER), _assistant(_ANSWER), _user(_QUESTION)],
        "images in both turns": [
            _system(_SYSTEM),
            _user(_IMAGE, _EARLIER),
            _assistant(_ANSWER),
            _user(_IMAGE, _IMAGE, _QUESTION),
        ],
    }.items()
}
"""By what is in them."""


def with_text_inside(text: str) -> dict[str, Conversation]:
    """Conversations in which `text` stands where a user's, a model's and a system's words stand."""
    inside = f"Before {text} and after"
    return {
        "a question": Conversation.from_messages([_user(_IMAGE, inside)]),
        "an earlier turn": Conversation.from_messages(
            [_user(inside), _assistant(inside), _user(_IMAGE, _QUESTION)]
        ),
        "a system message": Conversation.from_messages([_system(inside), _user(_IMAGE, _QUESTION)]),
    }


def texts(conversation: Conversation, *roles: str) -> list[str]:
    """What those in the given roles say, in order."""
    return [
        part.text
        for message in conversation.messages
        if message.role in roles
        for part in message.parts
        if isinstance(part, Text)
    ]
