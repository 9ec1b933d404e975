"""Datasets that Hugging Face's library `datasets` reads: of a directory, or of the hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vlm_run.batch.row import Columns
from vlm_run.batch.sources.parquet_file import first_line
from vlm_run.batch.sources.source import Source
from vlm_run.errors import VlmRunError
from vlm_run.extras import check_library, import_library

# A stream is shuffled through a buffer, since it cannot be drawn from at random.
_SHUFFLE_BUFFER = 10_000
_HUB_TIMEOUT_S = 20.0
_LIBRARY = ("datasets", "batch", "Hugging Face datasets")
_HUB_HINT = (
    "Give a file, a directory, or the name of a dataset on the Hugging Face hub; "
    "names that ms-swift registers, such as coco-en-2-mini, are unknown here."
)


def dataset_directory(
    directory: Path, subset: str | None, split: str | None, identity: dict[str, Any]
) -> Source:
    """Return the rows of a dataset in a directory.

    Args:
        directory: A directory with data files, or one written by `save_to_disk`.
        subset: Subset of a dataset that has several.
        split: Split of a dataset that has several.
        identity: What identifies the files.

    Raises:
        VlmRunError: It cannot be read, or it has several splits and none is given.
    """
    datasets = import_library(*_LIBRARY)
    with _reading(str(directory)):
        saved = any((directory / name).is_file() for name in ("state.json", "dataset_dict.json"))
        if saved:
            found = datasets.load_from_disk(str(directory))
        else:
            found = datasets.load_dataset(str(directory), subset, streaming=True)
        chosen = _choose_split(found, split, str(directory))
        total = len(chosen) if saved else None
        stream = chosen.to_iterable_dataset() if saved else chosen
    return Source(identity, lambda: iter(stream.decode(False)), total, directory.resolve())


def hub_dataset(name: str, subset: str | None, split: str | None) -> Source:
    """Return the rows of a dataset on the hub, which may not name local files.

    Args:
        name: The dataset's name on the hub.
        subset: Subset of a dataset that has several.
        split: Split of a dataset that has several.

    Raises:
        VlmRunError: There is no such dataset, or it cannot be read.
    """
    check_library(*_LIBRARY)
    # Asked first, since the library imports torch and would retry for half a minute without a network; and
    # fixed, since a run that is resumed must read the same rows.
    revision = _newest_revision(name)
    datasets = import_library(*_LIBRARY)
    with _reading(name):
        found = datasets.load_dataset(name, subset, streaming=True, revision=revision)
        chosen = _choose_split(found, split, name)
        stream = chosen.decode(False)

    def shuffled(seed: int) -> Iterator[Columns]:
        return iter(stream.shuffle(seed=seed, buffer_size=_SHUFFLE_BUFFER))

    identity = {"hub": name, "revision": revision}
    return Source(identity, lambda: iter(stream), _known_total(chosen), shuffled=shuffled)


def _newest_revision(name: str) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        return str(HfApi().dataset_info(name, timeout=_HUB_TIMEOUT_S).sha)
    except (HFValidationError, RepositoryNotFoundError):
        raise VlmRunError(f"there is no dataset '{name}' on the Hugging Face hub", hint=_HUB_HINT) from None
    except Exception as error:
        raise VlmRunError(
            f"'{name}' is neither a file nor a directory, and the Hugging Face hub cannot be reached to look "
            f"for it: {first_line(error)}",
            hint=_HUB_HINT,
        ) from error


def _known_total(stream: Any) -> int | None:
    """Return the number of rows that a dataset's card on the hub gives; None if it gives none."""
    split = (stream.info.splits or {}).get(str(stream.split))
    return None if split is None else split.num_examples or None


def _choose_split(found: Any, split: str | None, name: str) -> Any:
    if not isinstance(found, dict):
        return found
    if split is None and len(found) == 1:
        return next(iter(found.values()))
    if split not in found:
        raise VlmRunError(
            f"{name} has no split '{split}'" if split else f"{name} has several splits",
            hint=f"Give one with --split: {', '.join(map(str, found))}.",
        )
    return found[split]


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turn what `datasets` raises at data that it cannot read into an error that names the dataset."""
    try:
        yield
    except VlmRunError:
        raise
    except Exception as error:
        raise VlmRunError(
            f"the dataset {name} cannot be read: {first_line(error)}",
            hint="Give a file, a directory, or the name of a dataset on the Hugging Face hub.",
        ) from error
