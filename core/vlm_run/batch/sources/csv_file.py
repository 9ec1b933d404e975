"""CSV and TSV files, read by Python's `csv`."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

from vlm_run.batch.row import Columns
from vlm_run.batch.sources.source import Source
from vlm_run.batch.sources.text_file import TextFile, read_through
from vlm_run.errors import ConversationError, RequestError


def csv_file(path: Path, encoding: str | None) -> Source:
    """Return the rows of a CSV or TSV file, whose first line names the columns.

    Raises:
        VlmRunError: It is in another encoding.
    """
    file = read_through(path, encoding)
    delimiter = _delimiter(file)
    total = sum(1 for _ in _read(file, delimiter))
    return Source(file.identity, lambda: _read(file, delimiter), total, path.resolve().parent, text_only=True)


def _delimiter(file: TextFile) -> str:
    """Return the delimiter: a tab in TSV, otherwise a comma, or the semicolon of European spreadsheets."""
    if file.path.suffix.lower() == ".tsv":
        return "\t"
    with file.open("") as text:
        header = text.readline()
    return ";" if ";" in header and "," not in header else ","


def _read(file: TextFile, delimiter: str) -> Iterator[Columns]:
    csv.field_size_limit(sys.maxsize)  # cells may hold images in base64
    with file.open("") as text:
        rows = csv.DictReader(text, delimiter=delimiter)
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:  # of this line; the next one can be read
                yield ConversationError(f"line {rows.line_num} cannot be read: {error}")
                continue
            yield _check(row, file, rows.line_num)


def _check(row: dict[str | None, str | None], file: TextFile, line: int) -> Columns:
    if None in row:
        return ConversationError(f"line {line} has more fields than the header")
    try:
        for value in row.values():
            file.check(value or "", f"line {line}")
    except RequestError as error:
        return error
    return {str(name): value for name, value in row.items()}
