"""The interface of all kinds of sources."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm_run.batch.row import Columns


@dataclass(frozen=True, slots=True)
class Source:
    """A source of rows that can be read repeatedly, in the same order.

    Attributes:
        identity: What identifies its content, to recognize it in a later run.
        rows: Returns a new iterator over the columns of its rows.
        total: Number of rows, if known before they are read.
        directory: Directory of relative image paths; None if rows may not name local files.
        shuffled: Returns the rows in a random order for a seed; None to draw from `rows`.
        text_only: Whether cells are always text, as in CSV.
        notes: What the user should know about the source.
        kept: Columns that are copied to the result.
    """

    identity: dict[str, Any]
    rows: Callable[[], Iterator[Columns]]
    total: int | None = None
    directory: Path | None = None
    shuffled: Callable[[int], Iterator[Columns]] | None = None
    text_only: bool = False
    notes: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


def hash_file(path: Path) -> str:
    """Return the hash of a file's content."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
