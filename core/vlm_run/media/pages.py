"""Documents as images: the pages that a source names, and how they are loaded.

`doc.pdf` is all pages of a PDF, and `#page=2`, `#page=3-5` or `#page=4-` behind a source chooses some. A TIFF
without `#page=` is its first page, as any other image is its first frame.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

from PIL import Image

from vlm_run.errors import MediaError, printable
from vlm_run.media.content_type import (
    ALLOW_DOCUMENTS,
    display_name,
    image_format,
    is_pdf,
    refusal,
)
from vlm_run.media.decode import decode, frame_sizes
from vlm_run.media.pdf import Pdf
from vlm_run.media.policy import MIB, MediaPolicy
from vlm_run.media.source import PAGE_MARK, Pages

PageSize: TypeAlias = Callable[[int, int], tuple[int, int]]
"""Gives the size in pixels at which to render a page from its usual one, both (width, height)."""
PageRange: TypeAlias = tuple[int, int | None]
"""The first and the last page, counted from 1; None is the document's last."""

_RANGE = re.compile(r"([0-9]{1,7})(?:(-)([0-9]{1,7})?)?")


class Tiff:
    """A TIFF, each frame of which is a page.

    Attributes:
        pages: Number of pages, at least 1.

    Raises:
        MediaError: The TIFF is damaged.
    """

    def __init__(self, content: bytes, policy: MediaPolicy) -> None:
        self._content, self._policy = content, policy
        self._sizes = frame_sizes(content, policy)
        self.pages = len(self._sizes)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def size(self, number: int) -> tuple[int, int]:
        """Width and height in pixels of a page, counted from 1, as it was scanned."""
        return self._sizes[number - 1]

    def render(self, number: int, size: tuple[int, int]) -> Image.Image:
        """A page in RGB, upright, at its own size whatever `size` is.

        Raises:
            MediaError: The page is too large or damaged.
        """
        return decode(self._content, self._policy, frame=number - 1)


Document: TypeAlias = Pdf | Tiff


def split_pages(source: str) -> tuple[str, PageRange | None]:
    """Split the pages from the end of a source; None if it names none.

    >>> split_pages("doc.pdf#page=3-5")
    ('doc.pdf', (3, 5))
    >>> split_pages("doc.pdf#page=4-")
    ('doc.pdf', (4, None))
    >>> split_pages("doc.pdf")
    ('doc.pdf', None)

    Raises:
        MediaError: What follows `#page=` is not a page or a range of pages.
    """
    place, mark, text = source.rpartition(PAGE_MARK)
    if not mark:
        return source, None
    found = _RANGE.fullmatch(text.strip())
    first = int(found[1]) if found else 0
    last = first if found and not found[2] else int(found[3]) if found and found[3] else None
    if first < 1 or (last is not None and last < first):
        raise MediaError(
            f"'{PAGE_MARK}{printable(text)}' names no pages",
            hint="Write #page=2, #page=3-5 or #page=4-; pages are counted from 1.",
        )
    return place, (first, last)


def single_pages(content: bytes, pages: PageRange | None, policy: MediaPolicy) -> list[Pages] | None:
    """Each page that is an image of the request; None if the content is one image and no document.

    Args:
        content: An encoded image or document.
        pages: The pages that the source names, if it does.
        policy: Whether documents are accepted, and how many pages.

    Raises:
        MediaError: Documents are not accepted, the document cannot be opened, it has not these pages or
            too many, or pages of an image are named.
    """
    if pages is None and not is_pdf(content):
        return None
    _check_allowed(content, policy)
    with open_document(content, policy) as document:
        first, last = _within(pages or (1, None), document.pages)
    count = last - first + 1
    if count > policy.max_pages:
        raise MediaError(
            f"{count} pages are too many for one request, which takes {policy.max_pages} of a document",
            hint=f"Choose some, as #page={first}-{first + policy.max_pages - 1}, or answer page by page with "
            "--val_dataset (in Python: MediaPolicy(max_pages=…)).",
        )
    return [Pages(content, number, number) for number in range(first, last + 1)]


def page_numbers(file: Path, pages: PageRange | None, policy: MediaPolicy) -> range:
    """The numbers of a document's pages, or of those that are named.

    Args:
        file: A PDF, of which only what is needed is read, or a TIFF.
        pages: The pages that are named; None for all.
        policy: Limits on the file.

    Raises:
        MediaError: The document is too large or cannot be opened, or has not these pages.
    """
    try:
        if file.stat().st_size > policy.max_bytes:
            raise MediaError(f"{file} is larger than {policy.max_bytes / MIB:g} MiB")
        with file.open("rb") as start:
            source = file if is_pdf(start.read(1024)) else file.read_bytes()
    except OSError as error:
        raise MediaError(f"{file} cannot be read: {error.strerror}") from None
    with open_document(source, policy) as document:
        first, last = _within(pages or (1, None), document.pages)
    return range(first, last + 1)


def open_document(source: bytes | Path, policy: MediaPolicy) -> Document:
    """Open a PDF or a TIFF; only a PDF may be a path.

    Raises:
        MediaError: It is neither, or it is encrypted or damaged, or a library is missing.
    """
    if isinstance(source, Path) or is_pdf(source):
        return Pdf(source, policy)
    kind = image_format(source)
    if kind is None:
        raise refusal(source, policy)
    if kind != "TIFF":
        raise MediaError(
            f"{display_name(kind)} images have no pages", hint="Leave out #page=, or give a PDF or a TIFF."
        )
    return Tiff(source, policy)


def _check_allowed(content: bytes, policy: MediaPolicy) -> None:
    if policy.allow_documents:
        return
    if is_pdf(content):
        raise MediaError("the data is a PDF, and documents are not accepted here", hint=ALLOW_DOCUMENTS)
    raise MediaError("pages of documents are not accepted here", hint=ALLOW_DOCUMENTS)


def _within(pages: PageRange, count: int) -> tuple[int, int]:
    first, last = pages[0], count if pages[1] is None else pages[1]
    if max(first, last) > count:
        has = "1 page" if count == 1 else f"{count} pages"
        raise MediaError(f"there is no page {max(first, last)}: the document has {has}")
    return first, last
