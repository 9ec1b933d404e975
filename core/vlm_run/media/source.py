"""The types that an image in a request may have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from PIL import Image

ImageSource: TypeAlias = "str | bytes | Path | Image.Image"
"""A URL, a path, base64 text, a data URI, encoded bytes, or a decoded image."""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
"""Suffixes of file names that are taken for images."""

_INVISIBLE = "\ufeff\u200b\u2060"  # byte order mark, zero-width space, word joiner


def trimmed(source: ImageSource) -> ImageSource:
    """The source without the white space that copying and pasting leaves around a text."""
    return source.strip().strip(_INVISIBLE).strip() if isinstance(source, str) else source


__all__ = ["IMAGE_SUFFIXES", "ImageSource", "Path", "trimmed"]
