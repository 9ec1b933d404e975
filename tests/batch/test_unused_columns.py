"""Columns that look as if they should be used are pointed out, once."""

from __future__ import annotations

from typing import Any

import pytest

from vlm_run.batch.unused_columns import UnusedColumns, closest_name


@pytest.mark.parametrize(
    ("column", "name"),
    [
        ("image_path", "images"),
        (" images", "images"),
        ("Images", "images"),
        ("img", "images"),
        ("question", "query"),
        ("quary", "query"),
        ("Answer", "response"),
        ("completion", "response"),
        ("conversation", "messages"),
        ("maxPixels", "max_pixels"),
        ("difficulty", None),
        ("category", None),
        ("split", None),
    ],
)
def test_the_name_that_is_meant(column: str, name: str | None) -> None:
    assert closest_name(column) == name


def notes(*rows: dict[str, Any], **mapping: str) -> list[str]:
    unused = UnusedColumns(mapping)
    return [note for row in rows for note in unused.check(row)]


def test_a_note_has_the_option_that_would_use_the_column() -> None:
    row = {"query": "q", " images": "a.png", "image_path": "a.png", "difficulty": 3}
    assert notes(row, row) == [
        "the column ' images' is not used; --map ' images=images' would use it as 'images'",
        "the column 'image_path' is not used; --map image_path=images would use it as 'images'",
    ]


def test_a_column_that_is_not_missed_is_not_pointed_out() -> None:
    assert notes({"query": "q", "images": ["a.png"], "image_path": "a.png", "question": "q"}) == []
    assert notes({"messages": [], "images": [], "question": "q", "path": "a"}) == []
    assert notes({"custom_id": "1", "method": "POST", "url": "/v1", "body": {}}) == []
    assert notes({"query": "q", "image_path": "a.png"}, image_path="images") == []


def test_a_column_of_a_later_row_is_pointed_out_too() -> None:
    assert (
        len(notes({"query": "q"}, {"query": "q", "image_path": "a.png"}, {"query": "q", "label": "x"})) == 2
    )


def test_a_column_is_pointed_out_in_the_first_row_that_misses_it() -> None:
    rows = [{"query": "q", "images": ["a.png"], "image_path": "a.png"}, {"query": "q", "image_path": "a.png"}]
    assert len(notes(*rows)) == 1
