"""Conversations: OpenAI-style messages, and ms-swift's shorthands for them.

Pure data: nothing is fetched or decoded here. A user may write tags in place of images:

- `<image>` refers to the next entry of `images`; `<img>SOURCE</img>` contains its own source.
- Both are interpreted in `query` and `history`. In `messages` they are interpreted only if the
  content is a string, and `<image>` only if `images` is given too. Text in a list of parts is
  always plain text.
- Tags are interpreted only in user messages, never in a system message or an answer.
- One newline directly after a tag belongs to the tag; the chat template writes its own.

Without `<image>` tags, `images` with one entry per user turn are assigned to the turns in order,
None meaning no image; otherwise all images belong to the last turn. Images come before the text of
their turn.

Videos are given in the same ways: `<video>` refers to the next entry of `videos`, if they are given, and
`<video>SOURCE</video>` contains its own source. Videos come before the images of their turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar, cast

from vlm_run.errors import ConversationError
from vlm_run.media.source import Frames, ImageSource, VideoSource
from vlm_run.prompts.frames import read_video_source, with_defaults
from vlm_run.prompts.message import (
    Image,
    Message,
    Part,
    Text,
    Video,
    read_bounds,
    read_message,
    text_parts,
)
from vlm_run.prompts.placing import placed
from vlm_run.prompts.text import check_encodable
from vlm_run.video import FrameSelection

__all__ = ["Conversation", "Image", "Message", "Part", "Text", "Video", "with_media_parts"]

P = TypeVar("P", Image, Video)


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages, the last of which the model answers.

    Attributes:
        messages: The messages in order.
        tools: Tools that the model may call, as in OpenAI's `tools`, for templates that support them.
        continued: Whether the last message is the beginning of the model's own answer.
        task: Name of a task of the model, whose text precedes the question; None for none.
        template_kwargs: Variables of the chat template, which override the spec's.
    """

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    continued: bool = False
    task: str | None = None
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_messages(
        cls,
        messages: Iterable[Mapping[str, Any]],
        images: Sequence[ImageSource | None] | ImageSource | None = None,
        *,
        videos: Sequence[VideoSource | None] | VideoSource | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        continued: bool = False,
    ) -> Conversation:
        """Create a conversation from OpenAI-style messages.

        Args:
            messages: Each with `role` and `content`, a string or a list of parts of the types
                `text`, `image_url` (OpenAI), `image` (Hugging Face), `video_url` (vLLM), `video`
                (Hugging Face), `input_text` or `input_image` (OpenAI's Responses API). An image part may
                have `min_pixels` and `max_pixels`, as in Qwen's messages, and a video part the fields of
                `FrameSelection`.
            images: Images for the `<image>` tags in string content, or for the turns.
            videos: Videos for the `<video>` tags in string content, or for the turns.
            tools: Tools that the model may call, as in OpenAI's `tools`.
            continued: Whether the last message, of the assistant, is the beginning of the answer.

        Raises:
            ConversationError: The messages are malformed, or tags and images do not match.
        """
        parsed = tuple(_parsed(messages, images, videos))
        _check_end(parsed, continued)
        check_encodable(tools, "'tools'")
        return cls(parsed, tuple(tools or ()), continued)

    @classmethod
    def from_query(
        cls,
        query: str,
        history: Sequence[Sequence[str]] | None = None,
        images: Sequence[ImageSource | None] | ImageSource | None = None,
        system: str | None = None,
        videos: Sequence[VideoSource | None] | VideoSource | None = None,
    ) -> Conversation:
        """Create a conversation from ms-swift's shorthand.

        Args:
            query: The question.
            history: Earlier turns, each [query, response].
            images: Images for the `<image>` tags of all turns, or for the turns.
            system: A system message.
            videos: Videos for the `<video>` tags of all turns, or for the turns.

        Raises:
            ConversationError: An argument is malformed, or tags and images do not match.
        """
        messages: list[dict[str, Any]] = []
        if system is not None:
            messages.append({"role": "system", "content": system})
        if history is not None and (isinstance(history, str) or not isinstance(history, Sequence)):
            raise ConversationError("'history' must be a list of [query, response] pairs")
        for number, turn in enumerate(history or [], 1):
            if not _is_pair(turn):
                raise ConversationError(f"entry {number} of 'history' is not a pair of query and response")
            messages.append({"role": "user", "content": turn[0]})
            messages.append({"role": "assistant", "content": turn[1]})
        messages.append({"role": "user", "content": query})
        return cls.from_messages(messages, [] if images is None else images, videos=videos)

    @property
    def images(self) -> tuple[ImageSource, ...]:
        """The sources of all images, in order."""
        return tuple(image.source for _, image in self.image_places())

    def image_places(self) -> list[tuple[int, Image]]:
        """For each image in order, the index of its message and the image."""
        return self._places(Image)

    @property
    def videos(self) -> tuple[VideoSource, ...]:
        """The sources of all videos, in order."""
        return tuple(video.source for _, video in self.video_places())

    def video_places(self) -> list[tuple[int, Video]]:
        """For each video in order, the index of its message and the video."""
        return self._places(Video)

    def _places(self, kind: type[P]) -> list[tuple[int, P]]:
        return [
            (index, part)
            for index, message in enumerate(self.messages)
            for part in message.parts
            if isinstance(part, kind)
        ]

    def with_videos(self, change: Callable[[Video], Video]) -> Conversation:
        """The conversation with `change` applied to each video, in order."""
        return self._with_each(Video, lambda video: [change(video)])

    def with_frame_selection(self, selection: FrameSelection) -> Conversation:
        """The conversation with what each video leaves open about its frames taken from `selection`."""
        return self.with_videos(
            lambda video: replace(video, selection=with_defaults(video.selection, selection))
        )

    def with_images(self, change: Callable[[Image], Image]) -> Conversation:
        """The conversation with `change` applied to each image, in order."""
        return self.with_each_image(lambda image: [change(image)])

    def with_each_image(self, change: Callable[[Image], Iterable[Image]]) -> Conversation:
        """The conversation with each image, in order, replaced by the images that `change` gives for it."""
        return self._with_each(Image, change)

    def _with_each(self, kind: type[P], change: Callable[[P], Iterable[Part]]) -> Conversation:
        return replace(
            self,
            messages=tuple(
                replace(
                    message,
                    parts=tuple(
                        new
                        for part in message.parts
                        for new in (change(part) if isinstance(part, kind) else (part,))
                    ),
                )
                for message in self.messages
            ),
        )

    def with_pixel_bounds(self, min_pixels: int | None = None, max_pixels: int | None = None) -> Conversation:
        """The conversation with bounds on the area of each image that has no bounds of its own.

        Raises:
            ConversationError: A bound is not a positive integer, or `min_pixels` exceeds `max_pixels`.
        """
        min_pixels, max_pixels = read_bounds(min_pixels, max_pixels, "the request")
        return self.with_images(
            lambda image: (
                replace(image, min_pixels=min_pixels, max_pixels=max_pixels)
                if image.min_pixels is None and image.max_pixels is None
                else image
            )
        )

    def template_messages(self) -> list[dict[str, Any]]:
        """The messages as a Hugging Face chat template expects them.

        Content is a list of `{"type": "image"}`, `{"type": "video"}` and `{"type": "text", "text": …}`.
        """
        return [
            {
                "role": message.role,
                "content": [
                    {"type": "text", "text": part.text}
                    if isinstance(part, Text)
                    else {"type": "image" if isinstance(part, Image) else "video"}
                    for part in message.parts
                ],
                **message.fields,
            }
            for message in self.messages
        ]

    def text_messages(self, placeholder: Callable[[], str]) -> list[dict[str, Any]]:
        """The messages as a chat template for text content expects them.

        Content is a string: one line with a placeholder for each image, then the text.

        Args:
            placeholder: Returns the placeholder of the next image.
        """
        return [
            {
                "role": message.role,
                "content": "\n".join(
                    [placeholder() for part in message.parts if isinstance(part, Image)]
                    + ["".join(part.text for part in message.parts if isinstance(part, Text))]
                ),
                **message.fields,
            }
            for message in self.messages
        ]

    def with_instruction(self, text: str) -> Conversation:
        """The conversation with a line of text before the question, the text of the last user message.

        >>> Conversation.from_query("In French.").with_instruction("Describe.").messages[0].parts
        (Text(text='Describe.\\nIn French.'),)

        Raises:
            ConversationError: There is no user message.
        """
        index = max((at for at, each in enumerate(self.messages) if each.role == "user"), default=None)
        if index is None:
            raise ConversationError("a task is given, but there is no user message")
        changed = _with_instruction(self.messages[index], text)
        return replace(self, messages=(*self.messages[:index], changed, *self.messages[index + 1 :]))

    def without_reasoning(self, end: str) -> Conversation:
        """The conversation with only the text after the last `end` of each answer."""
        return replace(self, messages=tuple(_without_reasoning(message, end) for message in self.messages))

    def to_history(self, answer: str) -> list[list[str]]:
        """The conversation and its answer as [query, response] pairs, with queries as the user wrote them."""
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


def _with_instruction(message: Message, text: str) -> Message:
    """The message with a line before its first text; at its end if it has no text."""
    parts, written = message.parts, message.written
    at = next((at for at, part in enumerate(parts) if isinstance(part, Text) and part.text), None)
    if at is None:
        return replace(message, parts=(*parts, Text(text)), written=written + text)
    asked = cast(Text, parts[at]).text
    begin = max(written.find(asked), 0)
    return replace(
        message,
        parts=(*parts[:at], Text(f"{text}\n{asked}"), *parts[at + 1 :]),
        written=f"{written[:begin]}{text}\n{written[begin:]}",
    )


def _without_reasoning(message: Message, end: str) -> Message:
    whole = "".join(part.text for part in message.parts if isinstance(part, Text))
    if message.role != "assistant" or end not in whole:
        return message
    return replace(message, parts=tuple(text_parts(whole.rpartition(end)[2].lstrip("\n"))))


def _is_pair(turn: Any) -> bool:
    return isinstance(turn, (list, tuple)) and len(turn) == 2 and all(isinstance(side, str) for side in turn)


def with_media_parts(
    messages: Sequence[Mapping[str, Any]],
    images: Sequence[ImageSource | None] | ImageSource | None = None,
    videos: Sequence[VideoSource | None] | VideoSource | None = None,
    **bounds: int | None,
) -> list[dict[str, Any]]:
    """OpenAI-style messages in which every tag and every entry of `images` and `videos` has become a part.

    `bounds` are the arguments of `with_pixel_bounds`; they are added to the image parts.

    >>> with_media_parts([{"role": "user", "content": "<img>a.png</img>What is this?"}])[0]["content"]
    [{'type': 'image_url', 'image_url': {'url': 'a.png'}}, {'type': 'text', 'text': 'What is this?'}]

    Raises:
        ConversationError: The messages are malformed, or tags do not match images or videos.
    """
    parsed = Conversation(tuple(_parsed(messages, images, videos))).with_pixel_bounds(**bounds).messages
    return [
        {**message, "content": [_as_openai(part) for part in done.parts]}
        if any(isinstance(part, (Image, Video)) for part in done.parts)
        else dict(message)
        for message, done in zip(messages, parsed, strict=True)
    ]


def _as_openai(part: Part) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    if isinstance(part, Video):
        chosen = {name: value for name, value in asdict(part.selection).items() if value is not None}
        if isinstance(part.source, Frames):
            times = {} if part.source.times is None else {"times": list(part.source.times)}
            return {"type": "video", "video": list(part.source.images), **times, **chosen}
        return {"type": "video_url", "video_url": {"url": part.source}, **chosen}
    bounds = {"min_pixels": part.min_pixels, "max_pixels": part.max_pixels}
    given = {name: pixels for name, pixels in bounds.items() if pixels is not None}
    return {"type": "image_url", "image_url": {"url": part.source}, **given}


def _parsed(messages: Iterable[Mapping[str, Any]], images: Any, videos: Any = None) -> list[Message]:
    """The parsed messages, with every image and every video in its place."""
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Iterable):
        raise ConversationError("'messages' must be a list of messages")
    given = {Image: images, Video: _with_frames(videos)}
    read_tags = frozenset(kind for kind, sources in given.items() if sources is not None)
    parsed = [read_message(index, message, read_tags) for index, message in enumerate(messages)]
    if not parsed:
        raise ConversationError("the conversation has no messages")
    for kind, sources in given.items():
        parsed = placed(parsed, kind, sources)
    return parsed


def _with_frames(videos: Any) -> Any:
    """What is given as `videos`, with lists of frames read."""
    if isinstance(videos, (list, tuple)):
        return [
            read_video_source(video, {}, f"video {number}", None) for number, video in enumerate(videos, 1)
        ]
    return read_video_source(videos, {}, "the video", None)


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
