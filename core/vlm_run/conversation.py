"""Conversations: messages, the last of which the model answers.

Pure data: nothing is fetched or decoded here. How images are named in messages is in `messages`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vlm_run.errors import ConversationError
from vlm_run.messages import Image, ImageSource, Message, Part, Text, parse_messages, text_parts

__all__ = ["Conversation", "Image", "ImageSource", "Message", "Part", "Text"]


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages, the last of which the model answers.

    Attributes:
        messages: In order.
        tools: What the model may call, as in OpenAI's `tools`, for the templates that know them.
        continued: Whether the last message is the beginning of the model's own answer.
    """

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    continued: bool = False

    @classmethod
    def from_messages(
        cls,
        messages: Iterable[Mapping[str, Any]],
        images: Sequence[ImageSource | None] | ImageSource | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        continued: bool = False,
    ) -> Conversation:
        """From OpenAI-style messages.

        Args:
            messages: Each with `role` and `content`, a string or a list of parts of the types
                `text`, `image_url` (OpenAI), `image` (Hugging Face), `input_text` or
                `input_image` (OpenAI's responses).
            images: For the `<image>` tags in string contents, or for the turns.
            tools: What the model may call, as in OpenAI's `tools`.
            continued: Whether the last message, of the assistant, is the beginning of the answer.

        Raises:
            ConversationError: Something is malformed, or tags and images do not match.
        """
        parsed = tuple(parse_messages(messages, images))
        _check_end(parsed, continued)
        return cls(parsed, tuple(tools or ()), continued)

    @classmethod
    def from_query(
        cls,
        query: str,
        history: Sequence[Sequence[str]] | None = None,
        images: Sequence[ImageSource | None] | ImageSource | None = None,
        system: str | None = None,
    ) -> Conversation:
        """From ms-swift's shorthand.

        Args:
            query: The question.
            history: Earlier turns, each [query, response].
            images: For the `<image>` tags of all turns, or for the turns.
            system: A system message.

        Raises:
            ConversationError: Something is malformed, or tags and images do not match.
        """
        messages: list[dict[str, Any]] = []
        if system is not None:
            messages.append({"role": "system", "content": system})
        if history is not None and (isinstance(history, str) or not isinstance(history, Sequence)):
            raise ConversationError("'history' must be a list of [query, response] pairs")
        for number, turn in enumerate(history or [], 1):
            if not _is_pair(turn):
                raise ConversationError(f"entry {number} of 'history' is no pair of query and response")
            messages.append({"role": "user", "content": turn[0]})
            messages.append({"role": "assistant", "content": turn[1]})
        messages.append({"role": "user", "content": query})
        return cls.from_messages(messages, [] if images is None else images)

    @property
    def images(self) -> tuple[ImageSource, ...]:
        """The sources of all images, in order."""
        return tuple(source for _, source in self.image_places())

    def image_places(self) -> list[tuple[int, ImageSource]]:
        """For each image in order, the index of its message and its source."""
        return [
            (index, part.source)
            for index, message in enumerate(self.messages)
            for part in message.parts
            if isinstance(part, Image)
        ]

    def template_messages(self) -> list[dict[str, Any]]:
        """The messages as a Hugging Face chat template takes them.

        Content is a list of `{"type": "image"}` and `{"type": "text", "text": …}`.
        """
        return [
            {
                "role": message.role,
                "content": [
                    {"type": "text", "text": part.text} if isinstance(part, Text) else {"type": "image"}
                    for part in message.parts
                ],
                **message.fields,
            }
            for message in self.messages
        ]

    def without_reasoning(self, end: str) -> Conversation:
        """The conversation with its answers cut down to what follows the last `end` in each."""
        return replace(self, messages=tuple(_without_reasoning(message, end) for message in self.messages))

    def to_history(self, answer: str) -> list[list[str]]:
        """The conversation with its answer as [query, response] pairs, queries as they were written."""
        said = [message for message in self.messages if message.role != "system"]
        history: list[list[str]] = []
        for message in [*said, Message("assistant", (), answer)]:
            if message.role == "user" and history and len(history[-1]) == 1:
                history[-1][0] += f"\n{message.written}"
            elif message.role == "user":
                history.append([message.written])
            elif history and len(history[-1]) == 1:
                history[-1].append(message.written)
            elif history:
                history[-1][1] += message.written
        return history


def _without_reasoning(message: Message, end: str) -> Message:
    whole = "".join(part.text for part in message.parts if isinstance(part, Text))
    if message.role != "assistant" or end not in whole:
        return message
    return replace(message, parts=tuple(text_parts(whole.rpartition(end)[2].lstrip("\n"))))


def _is_pair(turn: Any) -> bool:
    return isinstance(turn, (list, tuple)) and len(turn) == 2 and all(isinstance(side, str) for side in turn)


def _check_end(messages: Sequence[Message], continued: bool) -> None:
    """Raise unless the model's answer, or the rest of it, comes next."""
    last = messages[-1].role
    if continued and last != "assistant":
        raise ConversationError(
            f"there is no answer to continue: the last message is of role '{last}'",
            message_index=len(messages) - 1,
        )
    if not continued and last not in ("user", "tool"):
        raise ConversationError(
            f"the last message is of role '{last}'",
            hint="The model answers a user: end with a user's message.",
            message_index=len(messages) - 1,
        )
