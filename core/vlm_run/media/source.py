"""The types that an image in a request may have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

if TYPE_CHECKING:
    from PIL import Image

ImageSource: TypeAlias = "str | bytes | Path | Image.Image | Pages"
"""A URL, a path, base64 text, a data URI, encoded bytes, a decoded image, or pages of a document."""

VideoSource: TypeAlias = "str | bytes | Path | Frames"
"""A URL, a path, base64 text, a data URI, encoded bytes, or frames."""

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"),
    *(".heic", ".heif"),
)
"""Suffixes of file names that are taken for images."""

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi"),
    *(".mpg", ".mpeg", ".ts", ".ogv", ".flv"),
)
"""Suffixes of file names that are taken for videos."""

PDF_SUFFIX = ".pdf"

PAGE_MARK = "#page="
"""The mark between a document and its page numbers in a source, as in `doc.pdf#page=2`."""


@dataclass(frozen=True, slots=True)
class Pages:
    """Pages of a document, each of which is an image.

    Attributes:
        content: The encoded document: a PDF or a TIFF.
        first: The first page, counted from 1.
        last: The last page; None for the document's last.
    """

    content: bytes
    first: int = 1
    last: int | None = None


@dataclass(frozen=True, slots=True)
class Frames:
    """Frames of a video, each of which is an image.

    Attributes:
        images: The images in order, all of one size.
        times: When each of them is shown, in seconds; None for two per second.
    """

    images: tuple[ImageSource, ...]
    times: tuple[float, ...] | None = None


def page_name(document: str, number: int) -> str:
    """The source that is one page of a document.

    >>> page_name("doc.pdf", 3)
    'doc.pdf#page=3'
    """
    return f"{document}{PAGE_MARK}{number}"


_INVISIBLE = "\ufeff\u200b\u2060"  # byte order mark, zero-width space, word joiner


Source = TypeVar("Source")


def trimmed(source: Source | str) -> Source | str:
    """The source without the white space that copying and pasting leaves around a text."""
    return source.strip().strip(_INVISIBLE).strip() if isinstance(source, str) else source


__all__ = [
    "IMAGE_SUFFIXES",
    "PAGE_MARK",
    "PDF_SUFFIX",
    "VIDEO_SUFFIXES",
    "Frames",
    "ImageSource",
    "Pages",
    "Path",
    "VideoSource",
    "page_name",
    "trimmed",
]
