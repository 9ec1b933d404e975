"""Decodes images to RGB: only allowed formats, within a pixel limit, EXIF rotation applied, never in part."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import TypeAlias

from PIL import ExifTags, Image, ImageOps

from vlm_run.errors import MediaError
from vlm_run.media.policy import MediaPolicy

AllowsDownscaledDecode: TypeAlias = Callable[[tuple[int, int], tuple[int, int]], bool]

# EXIF orientations that swap width and height.
_ON_THEIR_SIDE = (5, 6, 7, 8)


def decode(
    content: bytes, policy: MediaPolicy, allows_downscaled_decode: AllowsDownscaledDecode | None = None
) -> Image.Image:
    """The first frame of an encoded image, upright, in RGB.

    Args:
        content: The encoded image.
        policy: The allowed formats and the pixel limit.
        allows_downscaled_decode: Whether a JPEG of the first (width, height), upright and in pixels, may
            be decoded at the second, which takes a fraction of the time.

    Raises:
        MediaError: The data is not an image of an allowed format, is too large, or is damaged.
    """
    try:
        with warnings.catch_warnings():
            # The policy's limit is checked below, before Pillow decodes anything.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=policy.formats)
    except Image.DecompressionBombError as error:
        raise MediaError(f"the image is too large: {error}") from None
    except Exception:  # decoders raise arbitrary exceptions on damaged data
        known = ", ".join(policy.formats)
        raise MediaError("the data is not an image", hint=f"Known formats: {known}.") from None
    _check_pixels(image, policy)
    try:
        if allows_downscaled_decode is not None and image.format == "JPEG":
            _shrink_while_decoding(image, allows_downscaled_decode)
        image.load()
        # In place, since nothing else uses the image: copying a large one takes as long as reading it.
        ImageOps.exif_transpose(image, in_place=True)
        return as_rgb(image)
    except Exception as error:
        raise MediaError(f"the image is damaged or truncated: {error or type(error).__name__}") from None


def _shrink_while_decoding(image: Image.Image, allows_downscaled_decode: AllowsDownscaledDecode) -> None:
    """Decode a JPEG that is not loaded yet at the smallest size that is allowed."""
    width, height = image.size
    on_its_side = image.getexif().get(ExifTags.Base.Orientation) in _ON_THEIR_SIDE
    for divisor in (8, 4, 2):
        smaller = (-(-width // divisor), -(-height // divisor))
        sizes = (image.size, smaller)
        if allows_downscaled_decode(*(size[::-1] if on_its_side else size for size in sizes)):
            image.draft(None, (width // divisor, height // divisor))
            return


def check_image(image: Image.Image, policy: MediaPolicy) -> Image.Image:
    """An image that the caller decoded, upright, in RGB.

    Raises:
        MediaError: The image is too large, or its file is damaged.
    """
    _check_pixels(image, policy)
    try:
        return as_rgb(ImageOps.exif_transpose(image))
    except Exception as error:
        raise MediaError(f"the image is damaged or truncated: {error or type(error).__name__}") from None


def load_opened_image(image: Image.Image, policy: MediaPolicy) -> None:
    """Decode an image that the caller opened, without converting it.

    Raises:
        MediaError: The image is too large, or its file is damaged.
    """
    _check_pixels(image, policy)
    try:
        image.load()
    except Exception as error:
        raise MediaError(f"the image is damaged or truncated: {error or type(error).__name__}") from None


def as_rgb(image: Image.Image) -> Image.Image:
    """The image in RGB; transparent areas become white, as in vLLM's own loader."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return _from_high_depth(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _from_high_depth(image: Image.Image) -> Image.Image:
    """Greyscale images of 16 bits or more, scaled to 8 bits: Pillow's own conversion clips them at 255."""
    import numpy as np  # slow to import, and few images need it

    levels = np.asarray(image, dtype=np.float64)
    if image.mode == "F" and levels.size and levels.min() >= 0.0 and levels.max() <= 1.0:
        levels = levels * 255.0
    elif levels.size and levels.max() > 255:
        levels = levels / 257.0
    return Image.fromarray(np.clip(np.nan_to_num(levels), 0, 255).astype(np.uint8)).convert("RGB")


def _check_pixels(image: Image.Image, policy: MediaPolicy) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise MediaError("the image has no pixels")
    if width * height > policy.max_pixels:
        raise MediaError(
            f"the image has {width} × {height} pixels, more than the {policy.max_pixels:,} allowed",
            hint="Shrink it, or raise the limit (in Python: MediaPolicy(max_pixels=…)).",
        )
