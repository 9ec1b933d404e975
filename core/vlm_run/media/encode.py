"""Encodes local images as base64, for sending to a remote server."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlm_run.media.source import PAGE_MARK


def convert_to_base64(*, images: Sequence[str | Path | bytes | None]) -> dict[str, Any]:
    """The images as base64 text, in the form of ms-swift's function of the same name.

    URLs, data URIs and None are returned unchanged, and `#page=` behind the path of a document is kept.

    >>> convert_to_base64(images=[b"pixels", None])
    {'images': ['cGl4ZWxz', None]}

    Raises:
        OSError: A file cannot be read.
    """
    return {"images": [_convert(image) for image in images]}


def _convert(image: str | Path | bytes | None) -> str | None:
    if image is None:
        return None
    if isinstance(image, bytes):
        return base64.b64encode(image).decode("ascii")
    if isinstance(image, str):
        image = image.strip()
        if image.startswith(("http://", "https://", "data:")):
            return image
    path = Path(image).expanduser()
    place, mark, pages = str(path).rpartition(PAGE_MARK)
    if mark and not path.exists():
        return f"{_convert(place)}{mark}{pages}"
    return base64.b64encode(path.read_bytes()).decode("ascii")
