"""The forms in which a request may give an image or a video."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

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


SOURCE_KEYS = ("bytes", "base64", "path", "url")
"""The keys under which an object has the source of an image or a video; the first that has a value counts.

The data itself comes before its location, and a local file before an address: `datasets` and ms-swift write
`bytes` and `path`, where the path is only the name of the file from which the bytes were read.
"""


def source_in(value: Any) -> Any:
    """The source of an image or a video in an object of a row or a message; any other value as it is.

    >>> source_in({"bytes": b"GIF89a", "path": "a.gif"})
    b'GIF89a'
    >>> source_in({"bytes": None, "path": "a.gif"})
    'a.gif'
    >>> source_in("a.gif")
    'a.gif'

    Args:
        value: A source, or a mapping with one of `SOURCE_KEYS`, with `image` as in parts of messages, or with
            `frames`, which stays as it is.

    Returns:
        None if a mapping has a value for none of them.
    """
    if not isinstance(value, Mapping) or value.get("frames") is not None:
        return value
    return next((value[key] for key in (*SOURCE_KEYS, "image") if value.get(key) is not None), None)


_INVISIBLE = "\ufeff\u200b\u2060"  # byte order mark, zero-width space, word joiner


Source = TypeVar("Source")


def trimmed(source: Source | str) -> Source | str:
    """The source without the white space that copying and pasting leaves around a text."""
    return source.strip().strip(_INVISIBLE).strip() if isinstance(source, str) else source


__all__ = [
    "IMAGE_SUFFIXES",
    "PAGE_MARK",
    "PDF_SUFFIX",
    "SOURCE_KEYS",
    "VIDEO_SUFFIXES",
    "Frames",
    "ImageSource",
    "Pages",
    "Path",
    "VideoSource",
    "page_name",
    "source_in",
    "trimmed",
]
