"""Directories of images, each of which is a row."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from vlm_run.batch.row import Columns
from vlm_run.batch.sources.source import Source
from vlm_run.errors import VlmRunError
from vlm_run.media.source import IMAGE_SUFFIXES

# What archives and file servers add beside the files.
_HIDDEN = ("__MACOSX", "@eaDir")


def list_files(directory: Path) -> tuple[list[Path], int]:
    """Return the files below a directory in order, and the number of hidden images among the others.

    Hidden are files and directories whose names begin with a dot, such as `.ipynb_checkpoints` and
    macOS's `._photo.png`, and the directories that archives and file servers add.
    """
    visible, hidden_images = [], 0
    for file in sorted(directory.rglob("*")):
        if any(_is_hidden(part) for part in file.relative_to(directory).parts):
            hidden_images += is_image(file) and file.is_file()
        elif file.is_file():
            visible.append(file)
    return visible, hidden_images


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in _HIDDEN


def is_image(file: Path) -> bool:
    """Whether a file's name is that of an image."""
    return file.suffix.lower() in IMAGE_SUFFIXES


def image_directory(directory: Path, files: list[Path], hidden_images: int) -> Source:
    """Return a row for each image in a directory.

    Args:
        directory: The directory.
        files: The files below it.
        hidden_images: Number of images that are left out.

    Raises:
        VlmRunError: There is no image.
    """
    images = [file for file in files if is_image(file)]
    if not images:
        raise VlmRunError(f"{directory} has neither images nor a dataset")

    def rows() -> Iterator[Columns]:
        for image in images:
            yield {"id": image.relative_to(directory).as_posix(), "images": [str(image.resolve())]}

    notes: tuple[str, ...] = ()
    if hidden_images:
        plural = "files are" if hidden_images > 1 else "file is"
        notes = (f"{hidden_images} hidden image {plural} skipped in {directory}",)
    return Source(identify_files(directory, files), rows, len(images), directory.resolve(), notes=notes)


def identify_files(directory: Path, files: Iterable[Path]) -> dict[str, Any]:
    """Identify files by names, sizes and times; there may be too many to read them all."""
    digest, count = hashlib.blake2b(digest_size=16), 0
    for file in files:
        status = file.stat()
        line = f"{file.relative_to(directory)} {status.st_size} {status.st_mtime_ns}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
        count += 1
    return {"files": count, "blake2b": digest.hexdigest()}
