"""Decodes images to RGB: only allowed formats, within a pixel limit, upright, and never in part."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias

from PIL import ExifTags, Image, UnidentifiedImageError, features

from vlm_run.errors import MediaError, MediaWarning, printable
from vlm_run.media.content_type import display_name, image_format, refusal
from vlm_run.media.depth import Depth, depth_of, scale_colour, to_eight_bits
from vlm_run.media.metadata import exif_orientation, without_metadata
from vlm_run.media.policy import MediaPolicy

AllowsDownscaledDecode: TypeAlias = Callable[[tuple[int, int], tuple[int, int]], bool]

NOTE = "vlm_run_note"
"""Key of `Image.info` with a note about how the image was read, if there is one."""

# Pillow warns about damaged metadata, which does not matter here.
warnings.filterwarnings(
    "ignore", "Corrupt EXIF|Possibly corrupt EXIF|Truncated File Read|Tag data larger|Metadata Warning"
)

# The transposition that makes an image upright, by its EXIF orientation.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# EXIF orientations that swap width and height.
_ON_THEIR_SIDE = (5, 6, 7, 8)
# Where Pillow finds an orientation in `Image.info`.
_WITH_ORIENTATION = ("exif", "Raw profile type exif", "Raw profile type APP1", "xmp", "XML:com.adobe.xmp")
_LONGEST_REASON = 200  # characters
# Formats that a build of Pillow may lack.
_OPTIONAL = ("AVIF", "WEBP")
_MOST_FRAMES = 10_000


def decode(
    content: bytes,
    policy: MediaPolicy,
    allows_downscaled_decode: AllowsDownscaledDecode | None = None,
    *,
    frame: int = 0,
) -> Image.Image:
    """A frame of an encoded image, by default the first, upright, in RGB.

    Damaged metadata does not matter. Images with 10, 12 or 14 bits per channel stored in 16 are scaled by
    their true range; if that has to be derived from the largest value, a `MediaWarning` is issued, and
    `info[NOTE]` has its text.

    Args:
        content: The encoded image.
        policy: The allowed formats and the pixel limit.
        allows_downscaled_decode: Whether a JPEG of the first (width, height), upright and in pixels, may
            be decoded at the second, which takes a fraction of the time.
        frame: Zero-based index of the frame.

    Raises:
        MediaError: The data is not an image of an allowed format, is too large, or is damaged.
    """
    try:
        return _decode(content, policy, allows_downscaled_decode, frame)
    except MediaError:
        raise
    except Exception as error:  # decoders raise arbitrary exceptions on damaged data
        if isinstance(error, UnidentifiedImageError) and not _is_allowed(content, policy):
            raise refusal(content, policy) from None
        bare = without_metadata(content)
        if bare == content:
            raise _damaged(content, error) from None
    try:
        return _decode(bare, policy, allows_downscaled_decode, frame)
    except MediaError:
        raise
    except Exception as error:
        raise _damaged(bare, error) from None


def frame_sizes(content: bytes, policy: MediaPolicy) -> list[tuple[int, int]]:
    """Width and height in pixels of each frame of an encoded image, none of which is decoded.

    Raises:
        MediaError: The data is not an image of an allowed format, is damaged, or has too many frames.
    """
    try:
        image = _open(content, policy)
        sizes = [image.size]
        with suppress(EOFError):
            while len(sizes) <= _MOST_FRAMES:
                image.seek(len(sizes))
                sizes.append(image.size)
    except MediaError:
        raise
    except Exception as error:
        raise _damaged(content, error) from None
    if len(sizes) > _MOST_FRAMES:
        raise MediaError(f"the {image.format} image has more than {_MOST_FRAMES:,} pages")
    return sizes


def _decode(
    content: bytes, policy: MediaPolicy, allows_downscaled_decode: AllowsDownscaledDecode | None, frame: int
) -> Image.Image:
    image = _open(content, policy)
    if frame:
        image.seek(frame)
    _check_pixels(image, policy)
    if allows_downscaled_decode is not None and image.format == "JPEG":
        _shrink_while_decoding(image, allows_downscaled_decode)
    depth = depth_of(image, content)
    image.load()
    if not depth.wide_colour:
        return _without_orientation(_as_rgb(_upright(image), depth))
    scaled, note = scale_colour(image, depth, content)
    return _without_orientation(_noted(as_rgb(_upright(scaled, _orientation(image))), note))


def _open(content: bytes, policy: MediaPolicy) -> Image.Image:
    heif = image_format(content) == "HEIF" and policy.allow_documents and "HEIF" in policy.formats
    if heif:
        _register_heif()
    formats = ("HEIF",) if heif else tuple(form for form in policy.formats if form != "HEIF")
    try:
        with warnings.catch_warnings():
            # The policy's limit is checked before Pillow decodes anything.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(content), formats=formats)
    except Image.DecompressionBombError as error:
        raise MediaError(f"the image is too large: {error}") from None


def _register_heif() -> None:
    """Register the decoder of HEIC images with Pillow; doing it again changes nothing.

    Raises:
        MediaError: It is not installed.
    """
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise MediaError(
            "HEIC images need the library pillow-heif, which is not installed",
            hint="pip install 'vlm-run[heic]', or convert the image to PNG or JPEG.",
        ) from None
    register_heif_opener(thumbnails=False)


def _is_allowed(content: bytes, policy: MediaPolicy) -> bool:
    """Whether the data begins like an image of a format that is allowed and that Pillow can decode."""
    form = image_format(content)
    if form is None or form not in policy.formats:
        return False
    if form == "HEIF":
        return policy.allow_documents
    return form not in _OPTIONAL or bool(features.check(form.lower()))


def _damaged(content: bytes, error: Exception) -> MediaError:
    form = image_format(content)
    kind = f"{display_name(form)} image" if form else "image"
    if isinstance(error, UnidentifiedImageError) and form in Image.OPEN:
        error = _open_error(content, form) or error
    reason = printable(str(error), _LONGEST_REASON) or type(error).__name__
    return MediaError(f"the {kind} is damaged or truncated: {reason}")


def _open_error(content: bytes, form: str) -> Exception | None:
    """Why Pillow cannot open an image, which `Image.open` does not tell."""
    factory, _ = Image.OPEN[form]
    try:
        factory(io.BytesIO(content), "")
    except Exception as error:
        return error
    return None


def _shrink_while_decoding(image: Image.Image, allows_downscaled_decode: AllowsDownscaledDecode) -> None:
    """Decode a JPEG that is not loaded yet at the smallest size that is allowed."""
    width, height = image.size
    on_its_side = _orientation(image) in _ON_THEIR_SIDE
    for divisor in (8, 4, 2):
        smaller = (-(-width // divisor), -(-height // divisor))
        sizes = (image.size, smaller)
        if allows_downscaled_decode(*(size[::-1] if on_its_side else size for size in sizes)):
            image.draft(None, (width // divisor, height // divisor))
            return


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1, which is upright, if there is none or it cannot be read."""
    block = image.info.get("exif")
    if isinstance(block, bytes) and (orientation := exif_orientation(block)) is not None:
        return orientation
    return _pillows_orientation(image) or 1  # in XMP, a TIFF's tags or ImageMagick's text


def _pillows_orientation(image: Image.Image) -> int | None:
    """The orientation as Pillow reads it, 1 if it reads other tags only; None if it reads nothing."""
    try:
        tags = image.getexif()
        orientation = tags.get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF data raises arbitrary exceptions
        return None
    return orientation if tags and isinstance(orientation, int) else None


def _upright(image: Image.Image, orientation: int | None = None) -> Image.Image:
    # Not `ImageOps.exif_transpose`, which also writes the EXIF data back, and fails on tags that Pillow
    # can read but not write.
    method = _UPRIGHT.get(_orientation(image) if orientation is None else orientation)
    return image if method is None else image.transpose(method)


def _without_orientation(image: Image.Image) -> Image.Image:
    """An upright image without the metadata by which vLLM and transformers would turn it once more."""
    for key in _WITH_ORIENTATION:
        image.info.pop(key, None)
    return image


def check_image(image: Image.Image, policy: MediaPolicy) -> Image.Image:
    """An image that the caller decoded, upright, in RGB. The caller's image is not changed.

    Raises:
        MediaError: The image is too large, or its file is damaged.
    """
    load_opened_image(image, policy)
    try:
        # Pillow's view first: the caller may have changed the tags of an image that is upright already.
        orientation = _pillows_orientation(image) or _orientation(image)
        checked = _as_rgb(_upright(image, orientation), depth_of(image))
    except Exception as error:
        raise MediaError(f"the image is damaged or truncated: {error or type(error).__name__}") from None
    return _without_orientation(checked.copy() if checked is image else checked)


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
    return _as_rgb(image, Depth())


def _as_rgb(image: Image.Image, depth: Depth) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        grey, note = to_eight_bits(image, depth)
        return _noted(grey.convert("RGB"), note)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _noted(image: Image.Image, note: str | None) -> Image.Image:
    if note is not None:
        image.info[NOTE] = note
        warnings.warn(f"a 16-bit image may be too bright or too dark: {note}", MediaWarning, stacklevel=2)
    return image


def _check_pixels(image: Image.Image, policy: MediaPolicy) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise MediaError("the image has no pixels")
    if width * height > policy.max_pixels:
        raise MediaError(
            f"the image has {width} × {height} pixels, more than the {policy.max_pixels:,} allowed",
            hint="Shrink it, or raise the limit (in Python: MediaPolicy(max_pixels=…)).",
        )
