"""The shapes that rows come in, recognized by their columns.

ms-swift's (`query`, `response`, `history`, `images`, `system`), OpenAI's (`messages`), LLaVA's
(`conversations`, `image`), and lines of OpenAI's batch format (`custom_id`, `body`). What a row answers
itself is its reference, not part of the question.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vlm_run.batch.batch_line import read_body
from vlm_run.batch.messages import name_images, read_messages
from vlm_run.batch.reference import read_reference
from vlm_run.errors import ConversationError
from vlm_run.media.source import source_in
from vlm_run.prompts.frames import FRAME_FIELDS
from vlm_run.request import PIXEL_BOUNDS

COLUMNS = (
    *("query", "response", "references", "history", "images", "system"),
    *("messages", "conversations", "image", "id", "custom_id", "body", "sampling", "lora", "task"),
    *("videos", "video", *FRAME_FIELDS, *PIXEL_BOUNDS),
)
"""The columns that are recognized; `--map` gives other columns one of these names."""

# Columns that hold lists or objects. Where a cell is text, it may be their JSON.
_STRUCTURED = ("history", "images", "videos", "messages", "conversations", "body", "sampling")


@dataclass(frozen=True, slots=True)
class Question:
    """The question of a row.

    Attributes:
        request: The request, as `Request.parse` takes it.
        reference: The right answer, or several.
    """

    request: dict[str, Any]
    reference: str | list[str] | None = None


def read_question(
    fields: Mapping[str, Any],
    prompt: str | None = None,
    system: str | None = None,
    *,
    json_references: bool = False,
    columns: Iterable[str] = (),
) -> Question:
    """Read what a row asks, and the answer that it says is right.

    Args:
        fields: The row's columns under the names in `COLUMNS`, without missing values.
        prompt: The question of rows that have none.
        system: The system message of rows that have none.
        json_references: Whether the text in `references` is a JSON list, as in CSV.
        columns: The names of all of the row's columns, for errors.

    Raises:
        RequestError: The row is malformed.
    """
    structured = (*_STRUCTURED, "references") if json_references else _STRUCTURED
    fields = {name: _parse_json(value) if name in structured else value for name, value in fields.items()}
    if "body" in fields:
        task = {"task": fields["task"]} if "task" in fields else {}
        return Question({**task, **read_body(fields["body"], system)})
    reference = read_reference(fields.get("references", fields.get("response")))
    if "messages" in fields or "conversations" in fields:
        request, answer = _read_messages(fields, system)
        reference = reference if reference is not None else answer
    else:
        request = _read_query(fields, prompt, system, columns)
    request |= {name: fields[name] for name in ("sampling", "lora", "task") if name in fields}
    return Question({**request, **_read_videos(fields), **_read_numbers(fields, PIXEL_BOUNDS)}, reference)


def _parse_json(value: Any) -> Any:
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value, strict=False)
        except ValueError:
            return value
    return value


def _read_numbers(fields: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return the fields that the row has as numbers; in CSV they are text."""
    numbers = {}
    for name in names:
        if name in fields:
            value = fields[name]
            is_number = isinstance(value, str) and re.fullmatch(r"\s*\d{1,15}(\.\d*)?\s*", value)
            numbers[name] = float(value) if is_number else value
    return numbers


def _read_videos(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row's videos and which of their frames it wants.

    Without videos, columns such as `start` and `end` are about something else.
    """
    videos = fields.get("videos", fields.get("video"))
    if videos is None:
        return {}
    return {"videos": _sources_in(videos), **_read_numbers(fields, FRAME_FIELDS)}


def _read_query(
    fields: Mapping[str, Any], prompt: str | None, system: str | None, columns: Iterable[str]
) -> dict[str, Any]:
    query = fields.get("query", prompt)
    if query is None and "task" in fields:
        query = ""  # the text of the task is the question
    if query is None:
        raise ConversationError(
            f"the row has no question; its columns: {', '.join(map(str, columns)) or 'none'}",
            hint="Name the column of the question with --map COLUMN=query, or ask with --prompt.",
        )
    if not isinstance(query, str):
        hint = "A list of messages is --map COLUMN=messages." if isinstance(query, (list, tuple)) else None
        raise ConversationError(f"'query' is of type {type(query).__name__}, not text", hint=hint)
    request = {"query": query}
    request |= {name: fields[name] for name in ("history", "system") if name in fields}
    if system is not None:
        request.setdefault("system", system)
    images = _read_images(fields)
    return request if images is None else {**request, "images": images}


def _read_messages(
    fields: Mapping[str, Any], system: str | None
) -> tuple[dict[str, Any], str | list[str] | None]:
    """Return the request and, where the last message is an answer, that answer as the reference."""
    name = "messages" if "messages" in fields else "conversations"
    messages = read_messages(fields[name], name, fields.get("system", system))
    reference = None
    last = messages[-1]
    if len(messages) > 1 and isinstance(last, Mapping) and last.get("role") == "assistant":
        messages = messages[:-1]
        reference = read_reference(last)
    images = _read_images(fields)
    if images is None or name_images(messages):
        return {"messages": messages}, reference
    return {"messages": messages, "images": images}, reference


def _read_images(fields: Mapping[str, Any]) -> list[Any] | None:
    images = fields.get("images", fields.get("image"))
    return None if images is None else _sources_in(images)


def _sources_in(cell: Any) -> list[Any]:
    """Return the sources of the images or the videos in a cell, a list of them or a single one."""
    return [source_in(each) for each in (cell if isinstance(cell, (list, tuple)) else [cell])]
