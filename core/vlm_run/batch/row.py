"""A row of a dataset, and the request that it makes.

Whatever is wrong with a row becomes the row's own error: `read_row` raises nothing.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from vlm_run.batch.record import to_record
from vlm_run.batch.shapes import COLUMNS, Question, read_question
from vlm_run.errors import ConversationError, VlmRunError, as_request_error
from vlm_run.media.source import Frames, Source, VideoSource
from vlm_run.request import Request, Sampling

__all__ = ["COLUMNS", "Columns", "Row", "RowFormat", "read_row"]

Columns: TypeAlias = "Mapping[str, Any] | VlmRunError"
"""The columns of a row, or why they cannot be read."""

# Values nested deeper than this are refused; no request needs more than a few levels.
_MAX_DEPTH = 100
_MAX_PATH = 1000


@dataclass(frozen=True, slots=True)
class Row:
    """A row that has been read.

    Attributes:
        number: Zero-based index of the row in its dataset.
        id: The row's `id` or `custom_id`, if it has one.
        record: The request in a form for the result file; binary data is given by its size and hash.
        request: The request; None if the row is malformed.
        reference: The right answer, or several.
        error: Why the row is malformed; None if it is not.
        kept: Columns that are copied to the result.
    """

    number: int
    id: str | int | None
    record: dict[str, Any]
    request: Request | None = None
    reference: str | list[str] | None = None
    error: VlmRunError | None = None
    kept: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RowFormat:
    """How rows are read.

    Attributes:
        directory: Directory of relative image paths; None if rows may not name local files.
        mapping: Column names of the dataset, each with the name in `COLUMNS` that it stands for.
        prompt: The question of rows that have none.
        system: The system message of rows that have none.
        sampling: Sampling parameters of rows that set only some of their own.
        task: The task of rows that have none.
        has_tasks: Whether the model has tasks. If not, a column `task` is the dataset's own and not used.
        text_only: Whether the file format has text cells only, as CSV, where a list is written as JSON.
        kept: Columns that are copied to the result.
    """

    directory: Path | None = None
    mapping: Mapping[str, str] | None = None
    prompt: str | None = None
    system: str | None = None
    sampling: Sampling | None = None
    task: str | None = None
    has_tasks: bool = False
    text_only: bool = False
    kept: tuple[str, ...] = ()


def read_row(number: int, columns: Columns, row_format: RowFormat) -> Row:
    """Read a row from its columns.

    Args:
        number: Zero-based index of the row.
        columns: The columns, or why they cannot be read.
        row_format: How the row is read.

    Returns:
        The row, with either a request or an error.
    """
    row = Row(number, None, {})
    if isinstance(columns, VlmRunError):
        return replace(row, error=columns)
    row = replace(row, kept={name: columns[name] for name in row_format.kept if name in columns})
    try:
        fields = _select(columns, row_format)
        row = replace(row, id=_read_id(fields))
        if not row_format.has_tasks and "task" not in (row_format.mapping or {}).values():
            fields.pop("task", None)
        if row_format.task is not None:
            fields.setdefault("task", row_format.task)
        question = read_question(
            fields,
            row_format.prompt,
            row_format.system,
            json_references=row_format.text_only,
            columns=columns,
        )
        row = replace(row, record=to_record(question.request), reference=question.reference)
        return replace(row, request=_request(question, row_format))
    except Exception as error:
        return replace(row, record=row.record or to_record(columns), error=as_request_error(error))


def _select(columns: Mapping[str, Any], row_format: RowFormat) -> dict[str, Any]:
    """Return the columns that are used, under the names in `COLUMNS`, without missing values."""
    mapping = row_format.mapping or {}
    for column in mapping:
        if column not in columns:
            raise ConversationError(
                f"the row has no column '{column}'",
                hint=f"It has {', '.join(map(str, columns)) or 'no columns'}.",
            )
    sources = {name: name for name in COLUMNS if name not in mapping}
    sources |= {name: column for column, name in mapping.items()}
    # An empty name is the base model; in CSV it is an empty cell.
    base_model = columns.get(sources["lora"]) == "" and not row_format.text_only
    return {
        name: _without_nulls(columns[column], column)
        for name, column in sources.items()
        if not _is_missing(columns.get(column)) or (name == "lora" and base_model)
    }


def _is_missing(value: Any) -> bool:
    """Whether a cell is empty: null, empty text as in CSV, or NaN as in files that pandas wrote."""
    return value is None or (isinstance(value, str) and not value) or _is_nan(value)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _without_nulls(value: Any, column: str, depth: int = 0) -> Any:
    """Remove the keys with null that Arrow adds for keys of other rows; lists keep their nulls."""
    if depth > _MAX_DEPTH:
        raise ConversationError(f"'{column}' is nested more than {_MAX_DEPTH} levels deep")
    if isinstance(value, Mapping):
        return {
            key: _without_nulls(item, column, depth + 1) for key, item in value.items() if item is not None
        }
    if isinstance(value, (list, tuple)):
        return [_without_nulls(item, column, depth + 1) for item in value]
    return value


def _read_id(fields: Mapping[str, Any]) -> str | int | None:
    found = fields.get("custom_id", fields.get("id"))
    return found if found is None or isinstance(found, (str, int)) else str(found)


def _request(question: Question, row_format: RowFormat) -> Request:
    fields = dict(question.request)
    own = fields.pop("sampling", None)
    sampling = None if own is None else Sampling.parse(own, row_format.sampling)
    request = Request.parse(fields)
    conversation = request.conversation.with_images(
        lambda image: replace(image, source=_resolve(image.source, row_format.directory))
    )
    conversation = conversation.with_videos(
        lambda video: replace(video, source=_resolve_video(video.source, row_format.directory))
    )
    return replace(request, conversation=conversation, sampling=sampling)


def _resolve_video(source: VideoSource, directory: Path | None) -> VideoSource:
    if not isinstance(source, Frames):
        return _resolve(source, directory)
    return replace(source, images=tuple(_resolve(image, directory) for image in source.images))


def _resolve(source: Source, directory: Path | None) -> Source | str:
    """Make a relative path absolute; any other source stays as it is."""
    if directory is None or not isinstance(source, str):
        return source
    if source.startswith(("/", "~", "data:")) or "://" in source or len(source) > _MAX_PATH:
        return source
    # Base64 never has a dot, and the path of an image nearly always has one.
    path = str(directory / source)
    return path if "." in source or os.path.isfile(path) else source
