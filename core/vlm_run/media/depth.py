"""Scales images with more than 8 bits per channel to 8 bits by the range that their data really uses.

X-ray machines, microscopes and others store 10, 12 or 14 bits per channel in 16. Taken as 16 bits, such
images would be nearly black. The range is read from the file if it declares one (a PNG's chunk `sBIT`, a
TIFF's `BitsPerSample`, `MaxSampleValue` or `SMaxSampleValue`). Otherwise it is derived from the largest
value, and a note says so.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image, TiffTags

from vlm_run.media.metadata import png_chunks

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FULL = 2.0**16 - 1
# Bits that devices produce. 8 is for images that were stored with 16 bits but not scaled. Colour images of up
# to 14 bits that declare nothing may as well be dark photographs.
_GREY_BITS = (8, 10, 12, 14)
_COLOUR_BITS = (8, 10, 12)
# Pillow's raw modes for the upper byte of each channel, and those that decode the lower byte instead.
_OTHER_BYTE = {
    f"{mode};16{order}": f"{mode};16{other}"
    for mode in ("RGB", "RGBA", "RGBX")
    for order, other in (("B", "L"), ("L", "B"), ("N", "B"))
}
_TAGS = {tag.name: number for number, tag in TiffTags.TAGS_V2.items()}
_WHITE_IS_ZERO = 0
_COLOUR = ("RGB", "RGBA")


@dataclass(frozen=True, slots=True)
class Depth:
    """How the samples of an encoded image are to be read.

    Attributes:
        top: The largest possible value, if the file declares it.
        aligned_bits: Significant bits of a PNG. A conforming encoder scales them up to the stored bits.
        inverted: Whether 0 is white.
        wide_colour: Whether a colour image has 16 bits per channel, of which Pillow reads the upper 8.
    """

    top: float | None = None
    aligned_bits: int | None = None
    inverted: bool = False
    wide_colour: bool = False


def depth_of(image: Image.Image, content: bytes = b"") -> Depth:
    """The depth that an opened image declares; `content` is its file if it is a PNG."""
    if image.format == "PNG":
        return _png_depth(image, content)
    tags = getattr(image, "tag_v2", None)
    return Depth() if tags is None else _tiff_depth(image, tags)


def _png_depth(image: Image.Image, content: bytes) -> Depth:
    chunks = png_chunks(content[:4096])  # sBIT comes before the palette and the pixels
    stored = next((data[8] for kind, data, _ in chunks if kind == b"IHDR" and len(data) > 8), 8)
    if stored != 16:
        return Depth()
    bits = max(next((data for kind, data, _ in chunks if kind == b"sBIT"), b"\0"), default=0)
    declared = bits if 0 < bits < 16 else None
    top = None if declared is None else 2.0**declared - 1
    return Depth(top, declared, wide_colour=image.mode in _COLOUR)


def _tiff_depth(image: Image.Image, tags: Any) -> Depth:
    stored = max(_numbers(tags.get(_TAGS["BitsPerSample"])), default=1)
    declared = [
        value
        for name in ("SMaxSampleValue", "MaxSampleValue")
        for value in _numbers(tags.get(_TAGS[name]))
        if value > 0
    ]
    top = max(declared, default=None) or (2.0**stored - 1 if 8 < stored < 16 else None)
    inverted = tags.get(_TAGS["PhotometricInterpretation"]) == _WHITE_IS_ZERO and image.mode.startswith("I")
    return Depth(top, inverted=inverted, wide_colour=image.mode in _COLOUR and stored == 16)


def _numbers(value: Any) -> list[float]:
    """The numbers in a TIFF tag, which may be damaged."""
    values = value if isinstance(value, tuple) else (value,)
    return [float(each) for each in values if isinstance(each, (int, float))]


def to_eight_bits(image: Image.Image, depth: Depth) -> tuple[Image.Image, str | None]:
    """A greyscale image of more than 8 bits with 8, and a note if its range had to be derived.

    Args:
        image: A loaded image of the mode I, I;16 (or a variant of it) or F.
        depth: Its depth.
    """
    import numpy as np  # slow to import, and few images need it

    levels = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
    low = min(float(levels.min()), 0.0)
    top, note = _range(levels, depth, _GREY_BITS, image.mode == "F")
    levels = np.clip((levels - low) * 255.0 / (top - low), 0, 255)
    return Image.fromarray((255.0 - levels if depth.inverted else levels).astype(np.uint8)), note


def scale_colour(image: Image.Image, depth: Depth, content: bytes) -> tuple[Image.Image, str | None]:
    """A 16-bit colour image whose data uses fewer bits, scaled, and a note if the range had to be derived.

    Args:
        image: The upper 8 bits of each channel, RGB or RGBA.
        depth: Its depth.
        content: Its file, from which the lower 8 bits are decoded if they are needed.
    """
    extrema: Any = image.getextrema()
    if max(high for _, high in extrema[:3]) >= (64 if depth.top else 16):
        return image, None
    import numpy as np

    upper = np.asarray(image)
    levels = upper * 256.0
    if (lower := _lower_bytes(content, str(image.format))) is not None:
        levels += np.asarray(lower)
    top, note = _range(levels[..., :3], depth, _COLOUR_BITS)
    scaled = upper.copy()
    scaled[..., :3] = np.clip(levels[..., :3] * 255.0 / top, 0, 255)
    if upper.shape[2] == 4 and levels[..., 3].max() <= top:
        scaled[..., 3] = levels[..., 3] * 255.0 / top
    return Image.fromarray(scaled), note


def _range(
    levels: NDArray[np.float64], depth: Depth, usual_bits: tuple[int, ...], unit: bool = False
) -> tuple[float, str | None]:
    """The value that becomes white, and a note if it was derived from the largest value.

    Args:
        levels: The values of all channels.
        depth: What the file declares.
        usual_bits: Numbers of bits to choose from if it declares nothing.
        unit: Whether values from 0 to 1 are floating-point levels.
    """
    low, high = float(levels.min()), float(levels.max())
    if depth.top is not None and low >= 0 and high <= depth.top:
        return (_FULL if _is_scaled_up(levels, depth.aligned_bits) else depth.top), None
    if unit and low >= 0 and high <= 1:
        return 1.0, None
    if low < 0:
        return max(high, low + 1.0), f"its values, from {low:g} to {high:g}, are scaled from black to white"
    bits = next((bits for bits in usual_bits if high < 2**bits), 16)
    if high == 0 or (bits == 16 and high <= _FULL):
        return _FULL, None
    if high > _FULL:
        return high, f"it does not declare its value range, and its largest value, {high:g}, is read as white"
    return (
        2.0**bits - 1,
        f"it does not declare its value range, and is read as {bits}-bit data because its largest value "
        f"is {high:g}",
    )


def _is_scaled_up(levels: NDArray[np.float64], bits: int | None) -> bool:
    """Whether all values are `bits` significant bits scaled up to 16, with zeros or by repeating the bits."""
    if bits is None:
        return False
    values = levels.astype("uint32")
    lower = values % 2 ** (16 - bits)
    return bool((lower == 0).all() or (lower == values >> bits).all())


def _lower_bytes(content: bytes, form: str) -> Image.Image | None:
    """The lower 8 bits of each channel of a 16-bit colour image; None if Pillow cannot decode them."""
    image = Image.open(io.BytesIO(content), formats=[form])
    if image.size == (0, 0) or not image.tile:
        return None
    tiles = []
    for tile in image.tile:
        arguments = tile.args if isinstance(tile.args, tuple) else (tile.args,)
        rawmode = str(arguments[0])
        if rawmode not in _OTHER_BYTE:
            return None
        swapped = (_OTHER_BYTE[rawmode], *arguments[1:])
        tiles.append(tile._replace(args=swapped if isinstance(tile.args, tuple) else swapped[0]))
    image.tile = tiles
    image.load()
    return image
