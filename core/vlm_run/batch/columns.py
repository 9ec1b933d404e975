"""What a row of data asks, in any of the shapes that data sets come in.

Recognised by their columns: ms-swift's (`query`, `response`, `history`, `images`, `system`),
OpenAI's (`messages`), vLLM's batch format (`custom_id`, `body`) and LLaVA's (`conversations`,
`image`). What the row answers itself is the reference, not part of the question.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from vlm_run.errors import ConversationError, RequestError
from vlm_run.media.source import ImageSource
from vlm_run.prompts.conversation import Conversation
from vlm_run.request import PIXEL_BOUNDS, Request, Sampling

NAMES = (
    *("query", "response", "history", "images", "system", "messages", "conversations", "image"),
    *("id", "custom_id", "body", "sampling", *PIXEL_BOUNDS),
)
"""The columns that are understood; `--map` gives others one of these names."""

_STRUCTURED = ("history", "images", "messages", "conversations", "body", "sampling", "response")
_LLAVA_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}
# Of a batch line's body, what says nothing about the answer, or what every answer here is.
_BODY_IGNORED = ("model", "stream", "stream_options", "user", "metadata", "store")
_BASE64_TEXT = re.compile(r"(?:data:|[A-Za-z0-9+/_=-]{200})")
_LONGEST_SHOWN_SOURCE = 1000


Columns: TypeAlias = "Mapping[str, Any] | RequestError"
"""What a row holds, or why it cannot be read."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes:
        number: Its place in the data, from 0 on.
        id: Its `id` or `custom_id`, if it has one.
        shown: What it asks, ready for JSON; binary data as its length and hash.
        request: For the engine; None if the row is malformed.
        reference: The answer, or the answers, that it says are right.
        error: Why it is malformed.
    """

    number: int
    id: str | int | None
    shown: dict[str, Any]
    request: Request | None = None
    reference: str | list[str] | None = None
    error: RequestError | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """How rows are read.

    Attributes:
        folder: Of relative image paths; None where rows cannot mean files of this machine.
        mapping: From the data's column names to those in `NAMES`.
        prompt: The question of rows that have images and ask nothing.
        system: The system message of rows that bring none.
        sampling: Of rows that bring parameters of their own, for those that they do not name.
    """

    folder: Path | None = None
    mapping: Mapping[str, str] | None = None
    prompt: str | None = None
    system: str | None = None
    sampling: Sampling | None = None


def read_row(number: int, columns: Columns, reading: Reading) -> Row:
    """A row from its columns; what is wrong with it becomes its `error`."""
    if isinstance(columns, RequestError):
        return Row(number, None, {}, error=columns)
    fields = {key: value for key, value in _without_nulls(columns).items() if value != ""}
    row = Row(number, None, {})
    try:
        fields = _renamed(fields, reading.mapping or {})
        row = replace(row, id=_id(fields))
        asked, reference = _asked(fields, reading)
        row = replace(row, shown=_shown(asked), reference=reference)
        own = asked.pop("sampling", None)
        sampling = None if own is None else Sampling.parse(own, reading.sampling)
        request = Request.parse(asked)
        conversation = _with_sources(request.conversation, lambda source: _located(source, reading.folder))
    except RequestError as error:
        return replace(row, shown=row.shown or _shown(fields), error=error)
    return replace(row, request=Request(conversation, sampling))


def _renamed(fields: dict[str, Any], mapping: Mapping[str, str]) -> dict[str, Any]:
    for column in mapping:
        if column not in fields:
            raise ConversationError(
                f"the row has no column '{column}'", hint=f"It has {', '.join(map(str, fields)) or 'none'}."
            )
    fields = {
        **{key: value for key, value in fields.items() if key not in mapping},
        **{name: fields[column] for column, name in mapping.items()},
    }
    return {key: _parsed(value) if key in _STRUCTURED else value for key, value in fields.items()}


def _parsed(value: Any) -> Any:
    """CSV has no lists; they are written there as JSON."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _id(fields: Mapping[str, Any]) -> str | int | None:
    found = fields.get("custom_id", fields.get("id"))
    return found if found is None or isinstance(found, (str, int)) else str(found)


def _asked(fields: Mapping[str, Any], reading: Reading) -> tuple[dict[str, Any], Any]:
    """The request in a shape that `Request.parse` takes, and the reference."""
    if "body" in fields:
        return _of_batch_line(fields["body"], reading.system), None
    images = _images(fields)
    extra = {key: fields[key] for key in ("sampling", *PIXEL_BOUNDS) if key in fields}
    reference = _reference(fields.get("response"))
    if "messages" in fields or "conversations" in fields:
        messages = _filled(_messages(fields, reading.system), images)
        if (
            len(messages) > 1
            and isinstance(last := messages[-1], Mapping)
            and last.get("role") == "assistant"
        ):
            *messages, last = messages
            reference = reference or _reference(last.get("content"))
        if any(_is_image_part(part) for message in messages for part in _parts(message)):
            images = None
        given = {} if images is None else {"images": images}
        return {"messages": messages, **given, **extra}, reference
    query = fields.get("query", reading.prompt)
    if query is None:
        raise ConversationError(
            f"nothing is asked: the row has {', '.join(map(str, fields)) or 'no columns'}",
            hint="Name the column of the question with --map COLUMN=query, or ask with --prompt.",
        )
    if not isinstance(query, str):
        raise ConversationError(f"'query' is of type {type(query).__name__}, not text")
    kept = {key: fields[key] for key in ("history", "system") if key in fields}
    if reading.system is not None:
        kept.setdefault("system", reading.system)
    given = {} if images is None else {"images": images}
    return {"query": query, **kept, **given, **extra}, reference


def _of_batch_line(body: Any, system: str | None) -> dict[str, Any]:
    """A line of OpenAI's batch format: the parameters of one request stand beside its messages."""
    if not isinstance(body, Mapping) or "messages" not in body:
        raise ConversationError("'body' has no messages", hint="Only chat completions can be asked.")
    # What is set to false is not asked for, as in `"logprobs": false`.
    parameters = {
        key: value
        for key, value in body.items()
        if key not in ("messages", "images", *_BODY_IGNORED) and value is not False
    }
    if "max_completion_tokens" in parameters:
        parameters["max_tokens"] = parameters.pop("max_completion_tokens")
    if isinstance(stop := parameters.get("stop"), str):
        parameters["stop"] = [stop]
    form = parameters.pop("response_format", None)
    if isinstance(form, Mapping) and form.get("type") == "json_schema":
        parameters["json_schema"] = (form.get("json_schema") or {}).get("schema")
    elif isinstance(form, Mapping) and form.get("type") != "text":
        raise RequestError(
            f"response_format of type {form.get('type')!r} is not known", hint="Known: json_schema."
        )
    structured = parameters.pop("structured_outputs", None)  # vLLM's own
    if isinstance(structured, Mapping):
        names = {"json": "json_schema", "choice": "choice"}
        parameters |= {names.get(key, f"structured_outputs.{key}"): each for key, each in structured.items()}
    bounds = parameters.pop("mm_processor_kwargs", None)
    asked: dict[str, Any] = {
        "messages": _messages({"messages": body["messages"]}, system),
        **(bounds if isinstance(bounds, Mapping) else {}),
        **{key: parameters.pop(key) for key in PIXEL_BOUNDS if key in parameters},
    }
    if "images" in body:
        asked["images"] = body["images"]
    if parameters:
        asked["sampling"] = parameters
    return asked


def _messages(fields: Mapping[str, Any], system: str | None) -> list[Any]:
    name = "messages" if "messages" in fields else "conversations"
    turns = fields[name]
    if not isinstance(turns, Sequence) or isinstance(turns, (str, bytes)) or not turns:
        raise ConversationError(f"'{name}' must be a list of messages")
    messages = []
    for turn in turns:
        if isinstance(turn, Mapping) and "from" in turn:
            role = turn["from"]
            role = _LLAVA_ROLES.get(role, role) if isinstance(role, str) else role
            messages.append({"role": role, "content": turn.get("value")})
        else:
            messages.append(turn)
    system = fields.get("system", system)
    if system is not None and not (isinstance(messages[0], Mapping) and messages[0].get("role") == "system"):
        messages.insert(0, {"role": "system", "content": system})
    return messages


def _images(fields: Mapping[str, Any]) -> list[Any] | None:
    images = fields.get("images", fields.get("image"))
    if images is None:
        return None
    if not isinstance(images, (list, tuple)):
        images = [images]
    return [_source(image) for image in images]


def _source(image: Any) -> Any:
    """An image of a Hugging Face data set is its bytes, its path or both."""
    if isinstance(image, Mapping):
        keys = ("bytes", "path", "url", "image", "base64")
        return next((image[key] for key in keys if image.get(key) is not None), None)
    return image


def _filled(messages: list[Any], images: list[Any] | None) -> list[Any]:
    """The messages with images given to the parts `{"type": "image"}` that bring none, in order."""
    empty = [part for message in messages for part in _parts(message) if _is_empty(part)]
    if not empty or images is None:
        return messages
    if len(empty) != len(images):
        raise ConversationError(
            f"the messages have places for {len(empty)} images, but {len(images)} are given"
        )
    left = iter(images)
    return [
        {
            **message,
            "content": [
                {**part, "image": next(left)} if _is_empty(part) else part for part in _parts(message)
            ],
        }
        if _parts(message)
        else message
        for message in messages
    ]


def _parts(message: Any) -> list[Any]:
    content = message.get("content") if isinstance(message, Mapping) else None
    return list(content) if isinstance(content, (list, tuple)) else []


def _is_empty(part: Any) -> bool:
    return (
        isinstance(part, Mapping) and part.get("type") == "image" and part.keys() <= {"type", *PIXEL_BOUNDS}
    )


def _is_image_part(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") in ("image", "image_url", "input_image")


def _reference(value: Any) -> str | list[str] | None:
    if isinstance(value, (list, tuple)):
        texts = [part.get("text") if isinstance(part, Mapping) else part for part in value]
        return [str(text) for text in texts if text is not None] or None
    return None if value is None else str(value)


def _without_nulls(value: Any) -> Any:
    """Arrow fills every key that another row has; lists keep None, a turn without an image."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [_without_nulls(item) for item in value]
    return value


def _with_sources(conversation: Conversation, change: Callable[[ImageSource], ImageSource]) -> Conversation:
    return conversation.with_images(lambda image: replace(image, source=change(image.source)))


def _located(source: ImageSource, folder: Path | None) -> ImageSource:
    """A relative path becomes one from the data's folder; what is none stays."""
    if folder is None or not isinstance(source, str):
        return source
    if source.startswith(("/", "~", "data:")) or "://" in source or len(source) > _LONGEST_SHOWN_SOURCE:
        return source
    # Base64 has no dot, and a file that is meant to be an image has one in nearly every case.
    if "." in source or (folder / source).is_file():
        return str(folder / source)
    return source


def _shown(value: Any) -> Any:
    """A form for JSON, in which data that no one reads is named by its length and hash."""
    if isinstance(value, Mapping):
        return {str(key): _shown(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shown(item) for item in value]
    if isinstance(value, bytes):
        return {"bytes": len(value), "blake2b": _digest(value)}
    if isinstance(value, Sampling):
        return value.model_dump(exclude_defaults=True)
    if isinstance(value, str) and len(value) > _LONGEST_SHOWN_SOURCE and _BASE64_TEXT.match(value):
        return {"characters": len(value), "blake2b": _digest(value.encode())}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (str, int, float)):
        return value
    return str(value)


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
