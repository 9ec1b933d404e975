"""Where rows come from: files, directories and the Hugging Face hub, read one row at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from vlm_run.batch.row import Columns
from vlm_run.batch.sources.source import Source
from vlm_run.errors import VlmRunError
from vlm_run.media.source import PAGE_MARK, PDF_SUFFIX

_DATA_SUFFIXES = (".jsonl", ".json", ".csv", ".parquet", ".arrow")
DOCUMENT_SUFFIXES = (PDF_SUFFIX, ".tif", ".tiff")
"""Suffixes of files whose pages are rows."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset that can be read repeatedly, in the same order.

    Attributes:
        name: The name that the user gave.
        identity: What identifies the rows, to recognize them in a later run.
        rows: Returns a new iterator over the rows' zero-based numbers and columns.
        total: Number of rows, if known before they are read.
        directory: Directory of relative image paths; None if rows may not name local files.
        text_only: Whether cells are always text, as in CSV.
        notes: What the user should know about the source.
        kept: Columns that are copied to the result.
    """

    name: str
    identity: dict[str, Any]
    rows: Callable[[], Iterator[tuple[int, Columns]]]
    total: int | None = None
    directory: Path | None = None
    text_only: bool = False
    notes: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


def open_dataset(
    name: str,
    *,
    subset: str | None = None,
    split: str | None = None,
    seed: int | None = None,
    encoding: str | None = None,
) -> Dataset:
    """Open a dataset.

    Args:
        name: A JSONL, JSON, CSV or Parquet file, a PDF or a TIFF (`#page=3-5` behind it takes some of its
            pages), a directory of images and PDFs, a directory with a dataset, or the name of a dataset on
            the Hugging Face hub; `#N` behind it takes N rows.
        subset: Subset of a dataset that has several.
        split: Split of a dataset that has several.
        seed: With `#N`, the rows are drawn at random; those of a dataset on the hub from a moving
            buffer of 10,000.
        encoding: Encoding of a text file; None for UTF-8, or what its byte order mark says.

    Raises:
        VlmRunError: There is no such dataset, or it cannot be read.
    """
    place, count = _split_count(name)
    source = _open_source(place, subset, split, encoding)
    identity = {**source.identity, "subset": subset, "split": split, "rows": count}
    if count is not None and seed is not None:
        identity["seed"] = seed
    rows, total = _select_rows(source, count, seed)
    return Dataset(
        name,
        {key: value for key, value in identity.items() if value is not None},
        rows,
        total,
        source.directory,
        source.text_only,
        source.notes,
        source.kept,
    )


def _select_rows(
    source: Source, count: int | None, seed: int | None
) -> tuple[Callable[[], Iterator[tuple[int, Columns]]], int | None]:
    """Return the rows that are taken, and their number if it is known."""
    if count is None:
        return lambda: enumerate(source.rows()), source.total
    total = count if source.total is None else min(count, source.total)
    if seed is None:
        return lambda: islice(enumerate(source.rows()), count), total
    if source.shuffled is not None:
        shuffled = source.shuffled
        return lambda: islice(enumerate(shuffled(seed)), count), total
    known = source.total if source.total is not None else sum(1 for _ in source.rows())
    numbers = sorted(Random(seed).sample(range(known), min(count, known)))
    return lambda: _take(source.rows(), numbers), len(numbers)


def _take(rows: Iterator[Columns], numbers: Iterable[int]) -> Iterator[tuple[int, Columns]]:
    position = 0
    for number in numbers:
        columns = next(islice(rows, number - position, None))
        position = number + 1
        yield number, columns


def _split_count(name: str) -> tuple[str, int | None]:
    place, hash_sign, count = name.rpartition("#")
    if not hash_sign or count.startswith("page=") or os.path.exists(name):
        return name, None
    if not count.isdecimal() or int(count) < 1:
        raise VlmRunError(f"'#{count}' after {place} is not a number of rows", hint="Write DATA#100.")
    return place, int(count)


def _open_source(place: str, subset: str | None, split: str | None, encoding: str | None) -> Source:
    path = Path(place).expanduser()
    if PAGE_MARK in place and not os.path.exists(path):
        return _open_pages(place)
    suffix = path.suffix.lower()
    if os.path.isdir(path):
        return _open_directory(path, subset, split)
    if not os.path.isfile(path):
        if place.startswith(("/", ".", "~")) or suffix in _DATA_SUFFIXES:
            raise VlmRunError(f"there is no file {place}")
        from vlm_run.batch.sources.hf_dataset import hub_dataset

        return hub_dataset(place.removeprefix("HF::"), subset, split)
    if suffix == ".parquet":
        from vlm_run.batch.sources.parquet_file import parquet_file

        return parquet_file(path)
    if suffix in (".csv", ".tsv"):
        from vlm_run.batch.sources.csv_file import csv_file

        return csv_file(path, encoding)
    if suffix in (".jsonl", ".ndjson", ".json"):
        from vlm_run.batch.sources.json_file import json_file

        return json_file(path, encoding)
    if suffix in DOCUMENT_SUFFIXES:
        from vlm_run.batch.sources.document import document_file

        return document_file(path)
    raise VlmRunError(
        f"{place} has an unknown format",
        hint="Known: .jsonl, .json, .csv, .tsv, .parquet, .pdf, .tiff, a directory.",
    )


def _open_pages(place: str) -> Source:
    from vlm_run.batch.sources.document import document_file
    from vlm_run.media.pages import split_pages

    document, pages = split_pages(place)
    return document_file(Path(document).expanduser(), pages)


def _open_directory(directory: Path, subset: str | None, split: str | None) -> Source:
    from vlm_run.batch.sources.hf_dataset import dataset_directory
    from vlm_run.batch.sources.image_directory import identify_files, image_directory, list_files

    files, hidden_images = list_files(directory)
    if any(file.suffix.lower() in _DATA_SUFFIXES for file in files):
        return dataset_directory(directory, subset, split, identify_files(directory, files))
    return image_directory(directory, files, hidden_images)
