"""Where rows come from, read one by one: files, folders and Hugging Face data sets.

JSON and CSV are read as they are: Arrow, on which the `datasets` library stands, has one type for
each column, so that one odd row would cost the whole file. Parquet and data sets are Arrow's own
and are read with `datasets`, streamed.
"""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from vlm_run.batch.columns import Columns
from vlm_run.errors import ConversationError, VlmRunError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
_DATA_SUFFIXES = (".jsonl", ".json", ".csv", ".parquet", ".arrow")
# Of a stream from elsewhere, which cannot be drawn from before it has been read.
_SHUFFLE_BUFFER = 10_000
_HUB_TIMEOUT_S = 20.0
_HUB_HINT = (
    "Give a file, a folder, or a data set's name on the Hugging Face hub; "
    "names that ms-swift registers, such as coco-en-2-mini, are its own."
)


@dataclass(frozen=True, slots=True)
class Data:
    """A data set that can be read again and again, in the same order.

    Attributes:
        name: As the user gave it.
        identity: What another run over the same data has in common with this one.
        rows: Numbers from 0 on, and columns; a fresh iterator at each call.
        total: How many rows, where that is known before they are read.
        folder: Of relative image paths; None where rows cannot mean files of this machine.
    """

    name: str
    identity: dict[str, Any]
    rows: Callable[[], Iterator[tuple[int, Columns]]]
    total: int | None = None
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class _Source:
    identity: dict[str, Any]
    rows: Callable[[], Iterator[Columns]]
    total: int | None = None
    folder: Path | None = None
    shuffled: Callable[[int], Iterator[Columns]] | None = field(default=None)


def open_data(
    name: str, *, subset: str | None = None, split: str | None = None, seed: int | None = None
) -> Data:
    """The data set of a name.

    Args:
        name: A JSONL, JSON, CSV or Parquet file, a folder of images, a folder with a data set, or
            a data set's name on the Hugging Face hub; `#N` behind it takes N rows.
        subset: Of a data set that has several.
        split: Of a data set that has several.
        seed: With `#N`, the rows are drawn at random; of a data set on the hub, from a buffer of
            10,000 that moves along.

    Raises:
        VlmRunError: There is none, or it cannot be read.
    """
    place, count = _without_count(name)
    source = _source(place, subset, split)
    identity = {**source.identity, "subset": subset, "split": split, "rows": count}
    identity = {key: value for key, value in identity.items() if value is not None}
    if count is None:
        return Data(name, identity, lambda: enumerate(source.rows()), source.total, source.folder)
    total = count if source.total is None else min(count, source.total)
    if seed is None:
        return Data(name, identity, lambda: islice(enumerate(source.rows()), count), total, source.folder)
    identity["seed"] = seed
    if source.shuffled is not None:
        shuffled = source.shuffled
        return Data(name, identity, lambda: islice(enumerate(shuffled(seed)), count), total, source.folder)
    known = source.total if source.total is not None else sum(1 for _ in source.rows())
    chosen = sorted(Random(seed).sample(range(known), min(count, known)))
    return Data(name, identity, lambda: _chosen(source.rows(), chosen), len(chosen), source.folder)


def _without_count(name: str) -> tuple[str, int | None]:
    place, hash_sign, count = name.rpartition("#")
    if not hash_sign or Path(name).exists():
        return name, None
    if not count.isdecimal() or int(count) < 1:
        raise VlmRunError(f"'#{count}' behind {place} is no number of rows", hint="Write DATA#100.")
    return place, int(count)


def _chosen(rows: Iterator[Columns], numbers: Iterable[int]) -> Iterator[tuple[int, Columns]]:
    at = -1
    for number in numbers:
        columns = next(islice(rows, number - at - 1, None))
        at = number
        yield number, columns


def _source(place: str, subset: str | None, split: str | None) -> _Source:
    path = Path(place).expanduser()
    if path.is_dir():
        return _folder(path, subset, split)
    if not path.is_file():
        if place.startswith(("/", ".", "~")) or path.suffix.lower() in _DATA_SUFFIXES:
            raise VlmRunError(f"there is no file {place}")
        return _hub(place.removeprefix("HF::"), subset, split)
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _parquet(path)
    if suffix in (".csv", ".tsv"):
        return _counted(_file(path, lambda: _csv_rows(path, "\t" if suffix == ".tsv" else ",")))
    if suffix in (".jsonl", ".ndjson", ".json"):
        if _first_character(path) == b"[":
            return _counted(_file(path, lambda: _json_rows(path)))
        return _file(path, lambda: _jsonl_rows(path), count_lines=True)
    raise VlmRunError(
        f"{place} is of no known format", hint="Known: .jsonl, .json, .csv, .tsv, .parquet, a folder."
    )


def _file(path: Path, rows: Callable[[], Iterator[Columns]], *, count_lines: bool = False) -> _Source:
    digest, lines = hashlib.blake2b(digest_size=16), 0
    with path.open("rb") as file:
        for line in file if count_lines else iter(lambda: file.read(2**20), b""):
            digest.update(line)
            lines += not line.isspace()
    identity = {"bytes": path.stat().st_size, "blake2b": digest.hexdigest()}
    return _Source(identity, rows, lines if count_lines else None, path.resolve().parent)


def _counted(source: _Source) -> _Source:
    """With the number of its rows, for which they are read once: a file that is cut short shows now."""
    return replace(source, total=sum(1 for _ in source.rows()))


def _first_character(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]


def _jsonl_rows(path: Path) -> Iterator[Columns]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.isspace():
                continue
            try:
                columns = json.loads(line.removeprefix(b"\xef\xbb\xbf"))
            except (ValueError, RecursionError) as error:
                yield ConversationError(f"line {number} is no JSON: {error}")
                continue
            yield _object(columns, f"line {number}")


def _json_rows(path: Path) -> Iterator[Columns]:
    ijson = _library("ijson")
    with path.open("rb") as file:
        try:
            for number, item in enumerate(ijson.items(file, "item", use_float=True), 1):
                yield _object(item, f"entry {number}")
        except ijson.JSONError as error:
            raise VlmRunError(f"{path} is no whole JSON: {error}") from None


def _object(columns: Any, place: str) -> Columns:
    if isinstance(columns, dict):
        return columns
    return ConversationError(f"{place} is no JSON object, but a {type(columns).__name__}")


def _csv_rows(path: Path, delimiter: str) -> Iterator[Columns]:
    csv.field_size_limit(sys.maxsize)  # pictures in base64
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        rows = csv.DictReader(file, delimiter=delimiter)
        for row in rows:
            if None in row:
                yield ConversationError(f"line {rows.line_num} has more fields than the header")
            else:
                yield row


def _parquet(path: Path) -> _Source:
    datasets = _library("datasets")
    from pyarrow.parquet import read_metadata

    def rows() -> Iterator[Columns]:
        return iter(
            datasets.load_dataset("parquet", data_files=str(path), split="train", streaming=True).decode(
                False
            )
        )

    with _reading(str(path)):
        total = read_metadata(path).num_rows
    return _Source(_file(path, rows).identity, rows, total, path.resolve().parent)


def _folder(path: Path, subset: str | None, split: str | None) -> _Source:
    names = [file for file in sorted(path.rglob("*")) if file.is_file()]
    identity = {"files": len(names), "blake2b": _digest_of_files(path, names)}
    if any(file.suffix.lower() in _DATA_SUFFIXES for file in names):
        return _local_data_set(path, subset, split, identity)
    images = [file for file in names if file.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise VlmRunError(f"{path} has neither images nor a data set")

    def rows() -> Iterator[Columns]:
        for image in images:
            yield {"id": image.relative_to(path).as_posix(), "images": [str(image.resolve())]}

    return _Source(identity, rows, len(images), path.resolve())


def _digest_of_files(folder: Path, files: Iterable[Path]) -> str:
    """By names, sizes and times: a folder may hold more than one wants to read through."""
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        facts = file.stat()
        digest.update(f"{file.relative_to(folder)} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _local_data_set(path: Path, subset: str | None, split: str | None, identity: dict[str, Any]) -> _Source:
    datasets = _library("datasets")
    with _reading(str(path)):
        saved = any((path / name).is_file() for name in ("state.json", "dataset_dict.json"))
        if saved:  # by `save_to_disk`; read from the files' memory map
            found = datasets.load_from_disk(str(path))
        else:
            found = datasets.load_dataset(str(path), subset, streaming=True)
        chosen = _split(found, split, str(path))
        total = len(chosen) if saved else None
        stream = chosen.to_iterable_dataset() if saved else chosen

    return _Source(identity, lambda: iter(stream.decode(False)), total, path.resolve())


def _hub(name: str, subset: str | None, split: str | None) -> _Source:
    datasets = _library("datasets")
    # First and of one revision: the library would try for half a minute where there is no network,
    # and a run that goes on must not meet other rows.
    revision = _hub_revision(name)
    with _reading(name):
        found = datasets.load_dataset(name, subset, streaming=True, revision=revision)
        chosen = _split(found, split, name)
        stream = chosen.decode(False)

    def shuffled(seed: int) -> Iterator[Columns]:
        return iter(stream.shuffle(seed=seed, buffer_size=_SHUFFLE_BUFFER))

    identity = {"hub": name, "revision": revision}
    return _Source(identity, lambda: iter(stream), _known_total(chosen), shuffled=shuffled)


def _hub_revision(name: str) -> str:
    """The newest revision of a data set on the hub."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        return str(HfApi().dataset_info(name, timeout=_HUB_TIMEOUT_S).sha)
    except (HFValidationError, RepositoryNotFoundError):
        raise VlmRunError(f"there is no data set '{name}' on the Hugging Face hub", hint=_HUB_HINT) from None
    except Exception as error:
        raise VlmRunError(
            f"'{name}' is neither a file nor a folder, and the Hugging Face hub cannot be asked for it: "
            f"{_first_line(error)}",
            hint=_HUB_HINT,
        ) from error


def _known_total(stream: Any) -> int | None:
    """How many rows a data set of the hub says that it has, if it does."""
    splits = stream.info.splits or {}
    found = splits.get(str(stream.split))
    return None if found is None else found.num_examples or None


def _split(found: Any, split: str | None, name: str) -> Any:
    if not isinstance(found, dict):
        return found
    if split is None and len(found) == 1:
        return next(iter(found.values()))
    if split not in found:
        has = ", ".join(map(str, found))
        raise VlmRunError(
            f"{name} has no split '{split}'" if split else f"{name} has several splits",
            hint=f"Give one with --split: {has}.",
        )
    return found[split]


class _reading:
    """Turns what the `datasets` library raises at data that it cannot read into an error for people."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, VlmRunError):
            raise VlmRunError(
                f"the data set {self._name} cannot be read: {_first_line(error)}",
                hint="Give a file, a folder, or a data set's name on the Hugging Face hub.",
            ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")


def _library(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise VlmRunError(
            f"this data needs the library {name}, which is not installed", hint="pip install 'vlm-run[batch]'"
        ) from error
