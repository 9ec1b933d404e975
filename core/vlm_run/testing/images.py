"""The images on which a plugin's image hooks are checked, encoded as users send them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from PIL import Image

_ORIENTATION = 0x0112
_ROTATED_BY_90 = 6


def odd_images() -> Iterator[tuple[str, bytes]]:
    """Encoded images with unusual sizes or colour modes, each with a description."""
    yield "1 x 1", _encoded(Image.new("RGB", (1, 1)))
    yield "1 x 4000", _encoded(Image.new("RGB", (1, 4000)))
    yield "4000 x 1", _encoded(Image.new("RGB", (4000, 1)))
    yield "2 x 350", _encoded(Image.new("RGB", (2, 350)))
    yield "350 x 2", _encoded(Image.new("RGB", (350, 2)))
    yield "black and white", _encoded(_grey().convert("1"))
    yield "grey", _encoded(_grey())
    yield "16-bit grey", _encoded(_grey().convert("I;16"))
    yield "palette", _encoded(_grey().convert("P"))
    yield "palette with transparency", _encoded(_grey().convert("P"), transparency=0)
    yield "alpha", _encoded(_grey().convert("RGBA"))
    yield "CMYK", _encoded(_grey().convert("CMYK"), form="JPEG")
    yield "rotated by EXIF", _encoded(_grey(), form="JPEG", exif=_rotation())


def gradient_image(width: int, height: int) -> Image.Image:
    """An RGB image of the given size with a radial gradient."""
    return Image.radial_gradient("L").resize((width, height)).convert("RGB")


def _grey() -> Image.Image:
    return Image.linear_gradient("L").resize((120, 80))


def _rotation() -> Image.Exif:
    exif = Image.Exif()
    exif[_ORIENTATION] = _ROTATED_BY_90
    return exif


def _encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()
