"""Documents, each page of which is a row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlm_run.batch.row import Columns
from vlm_run.batch.sources.source import Source, hash_file
from vlm_run.errors import MediaError, VlmRunError
from vlm_run.media.source import page_name

KEPT = ("file", "page")
"""Columns that a result has in addition."""


def document_file(path: Path, pages: tuple[int, int | None] | None = None) -> Source:
    """Return a row for each page of a document.

    Args:
        path: A PDF or a TIFF.
        pages: The first and the last page, counted from 1, where None is the document's last; None for all.

    Raises:
        VlmRunError: The document cannot be opened or has not these pages, or pypdfium2 is not installed.
    """
    from vlm_run.media import MediaPolicy
    from vlm_run.media.pages import page_numbers

    if not path.is_file():
        raise VlmRunError(f"there is no file {path}")
    try:
        numbers = page_numbers(path, pages, MediaPolicy())
    except MediaError as error:
        raise VlmRunError(f"{path} cannot be read: {error.cause}", hint=error.hint) from None

    def rows() -> Iterator[Columns]:
        for number in numbers:
            yield page_row(path.name, path, number)

    identity: dict[str, Any] = {"bytes": path.stat().st_size, "blake2b": hash_file(path)}
    if pages is not None:
        identity["pages"] = [numbers[0], numbers[-1]]
    return Source(identity, rows, len(numbers), path.resolve().parent, kept=KEPT)


def page_row(name: str, path: Path, number: int) -> Columns:
    """Return the row of one page.

    Args:
        name: The document's name in the dataset.
        path: The document.
        number: The page, counted from 1.
    """
    return {
        "id": page_name(name, number),
        "images": [page_name(str(path.resolve()), number)],
        "file": name,
        "page": number,
    }
