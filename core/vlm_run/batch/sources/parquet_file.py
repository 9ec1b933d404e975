"""Parquet files, read by pyarrow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlm_run.batch.row import Columns
from vlm_run.batch.sources.source import Source, hash_file
from vlm_run.errors import ConversationError, VlmRunError
from vlm_run.extras import import_library

# Small, since a row may hold images.
_BATCH_ROWS = 64


def parquet_file(path: Path) -> Source:
    """Return the rows of a Parquet file.

    Raises:
        VlmRunError: It is not a Parquet file, or pyarrow is not installed.
    """
    parquet = import_library("pyarrow.parquet", "batch", "Parquet files")
    try:
        total = parquet.read_metadata(path).num_rows
    except Exception as error:
        raise VlmRunError(f"{path} cannot be read: {first_line(error)}") from error
    identity = {"bytes": path.stat().st_size, "blake2b": hash_file(path)}
    return Source(identity, lambda: _read(path), total, path.resolve().parent)


def _read(path: Path) -> Iterator[Columns]:
    parquet = import_library("pyarrow.parquet", "batch", "Parquet files")
    with parquet.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            remaining = file.metadata.row_group(group).num_rows
            try:
                for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group]):
                    remaining -= batch.num_rows
                    yield from _read_batch(batch)
            except Exception as error:  # a damaged row group; the next one may be whole
                for _ in range(remaining):
                    yield ConversationError(f"the row cannot be read from its row group: {first_line(error)}")


def _read_batch(batch: Any) -> Iterator[Columns]:
    for number in range(batch.num_rows):
        try:
            (row,) = batch.slice(number, 1).to_pylist()
        except Exception as error:  # for example text that is not UTF-8
            row = ConversationError(f"the row cannot be read: {first_line(error)}")
        yield row


def first_line(error: Exception) -> str:
    """Return the first line of an exception's text."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")
