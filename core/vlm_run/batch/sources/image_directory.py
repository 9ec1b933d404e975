"""Directories of images and PDFs: each image and each page is a row."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from vlm_run.batch.row import Columns
from vlm_run.batch.sources.document import KEPT, page_row
from vlm_run.batch.sources.source import Source
from vlm_run.errors import MediaError, VlmRunError
from vlm_run.extras import import_library
from vlm_run.media.source import IMAGE_SUFFIXES, PDF_SUFFIX

# Names of files that archives and file servers add.
_HIDDEN = ("__MACOSX", "@eaDir")
_SINCE_DOCUMENTS = (".heic", ".heif")


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
    """Return a row for each image in a directory, and for each page of its PDFs.

    A PDF that cannot be opened has one row, which fails.

    Args:
        directory: The directory.
        files: The files below it.
        hidden_images: Number of images that are left out.

    Raises:
        VlmRunError: There is no image and no PDF, or a PDF but not pypdfium2.
    """
    images = [file for file in files if is_image(file) or _is_pdf(file)]
    if not images:
        raise VlmRunError(f"{directory} has neither images nor a dataset")
    pages = _count_pages([file for file in images if _is_pdf(file)])

    def rows() -> Iterator[Columns]:
        for image in images:
            name = image.relative_to(directory).as_posix()
            row: dict[str, Any] = {"id": name, "images": [str(image.resolve())]}
            if pages:
                row["file"] = name
            if not pages.get(image):
                yield row
            for number in pages.get(image, ()):
                yield page_row(name, image, number)

    notes: tuple[str, ...] = ()
    if hidden_images:
        plural = "files are" if hidden_images > 1 else "file is"
        notes = (f"{hidden_images} hidden image {plural} skipped in {directory}",)
    total = len(images) - len(pages) + sum(max(1, len(numbers)) for numbers in pages.values())
    identity = identify_files(directory, files)
    if pages or any(file.suffix.lower() in _SINCE_DOCUMENTS for file in images):
        identity["rows_of_files"] = total  # not the rows of an earlier version, which left out such files
    kept = KEPT if pages else ()
    return Source(identity, rows, total, directory.resolve(), notes=notes, kept=kept)


def _is_pdf(file: Path) -> bool:
    return file.suffix.lower() == PDF_SUFFIX


def _count_pages(documents: list[Path]) -> dict[Path, Sequence[int]]:
    """Return the page numbers of each document; none for one that cannot be opened."""
    if not documents:
        return {}
    import_library("pypdfium2", "documents", "PDFs")
    from vlm_run.media import MediaPolicy
    from vlm_run.media.pages import page_numbers

    pages: dict[Path, Sequence[int]] = {}
    for document in documents:
        try:
            pages[document] = page_numbers(document, None, MediaPolicy())
        except MediaError:  # its row tells why
            pages[document] = ()
    return pages


def identify_files(directory: Path, files: Iterable[Path]) -> dict[str, Any]:
    """Identify files by names, sizes and times; there may be too many to read them all."""
    digest, count = hashlib.blake2b(digest_size=16), 0
    for file in files:
        status = file.stat()
        line = f"{file.relative_to(directory)} {status.st_size} {status.st_mtime_ns}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
        count += 1
    return {"files": count, "blake2b": digest.hexdigest()}
