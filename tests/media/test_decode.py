"""Decoding: every kind of image becomes upright RGB, and everything else a `MediaError`."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from vlm_run import MediaPolicy
from vlm_run.errors import MediaError
from vlm_run.media.decode import as_rgb, check_image, decode

POLICY = MediaPolicy()
RED = (200, 10, 30)
Encode = Callable[..., bytes]


def _near(image: Image.Image, colour: tuple[int, int, int], tolerance: int = 6) -> bool:
    pixels = np.asarray(image, dtype=int)
    return image.mode == "RGB" and bool(np.all(abs(pixels - np.array(colour)) <= tolerance))


# --- Formats


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "MPO"])
def test_each_format(form: str, encode: Encode) -> None:
    image = decode(encode(Image.new("RGB", (48, 32), RED), form), POLICY)
    assert image.size == (48, 32)
    assert _near(image, RED)


@pytest.mark.parametrize("form", ["PPM", "ICO", "TGA", "PCX", "PDF", "EPS"])
def test_other_formats_are_not_tried(form: str, encode: Encode) -> None:
    with pytest.raises(
        MediaError, match=r"Supported formats: JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF, HEIC\.$"
    ):
        decode(encode(Image.new("RGB", (48, 32), RED), form), POLICY)


def test_a_policy_may_allow_fewer_formats(encode: Encode, png: bytes) -> None:
    policy = MediaPolicy(formats=("JPEG",))
    assert decode(encode(Image.new("RGB", (8, 8), RED), "JPEG"), policy).size == (8, 8)
    with pytest.raises(MediaError, match=r"PNG images are not allowed\. Supported formats: JPEG\."):
        decode(png, policy)


def test_data_that_is_not_an_image_is_refused_in_a_fresh_process() -> None:
    # Pillow loads its decoders as they are needed, so that what ran before matters.
    program = """
from vlm_run import MediaPolicy
from vlm_run.errors import MediaError
from vlm_run.media.decode import decode
try:
    decode(b"<html></html>", MediaPolicy())
except MediaError as error:
    print(error.cause)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "the data is an HTML page, not an image\n"


# --- Modes


def test_a_palette(encode: Encode) -> None:
    assert _near(decode(encode(Image.new("RGB", (6, 4), RED).quantize(4)), POLICY), RED)


@pytest.mark.parametrize(("mode", "levels"), [("L", 90), ("1", 255)])
def test_grey(mode: str, levels: int, encode: Encode) -> None:
    image = decode(encode(Image.new(mode, (6, 4), levels)), POLICY)
    assert _near(image, (levels, levels, levels), 0)


@pytest.mark.parametrize(("alpha", "colour"), [(255, RED), (0, (255, 255, 255)), (128, (227, 132, 142))])
def test_what_is_transparent_becomes_white(alpha: int, colour: tuple[int, int, int], encode: Encode) -> None:
    image = Image.new("RGBA", (6, 4), (*RED, alpha))
    assert _near(decode(encode(image), POLICY), colour, 1)
    assert _near(decode(encode(image, "WEBP", lossless=True, exact=True), POLICY), colour, 1)


def test_grey_with_alpha(encode: Encode) -> None:
    assert _near(decode(encode(Image.new("LA", (6, 4), (90, 0))), POLICY), (255, 255, 255))


def test_a_transparent_entry_of_a_palette(encode: Encode) -> None:
    image = Image.new("P", (6, 4), 1)
    image.putpalette([0, 0, 0, *RED])
    assert _near(decode(encode(image, transparency=1), POLICY), (255, 255, 255))
    assert _near(decode(encode(image, transparency=0), POLICY), RED)


def test_a_transparent_colour(encode: Encode) -> None:
    content = encode(Image.new("RGB", (6, 4), RED), transparency=RED)
    assert _near(decode(content, POLICY), (255, 255, 255))


@pytest.mark.parametrize(("level", "grey"), [(0, 0), (257, 1), (32896, 128), (65535, 255)])
def test_sixteen_bits_are_scaled_not_cut(level: int, grey: int, encode: Encode) -> None:
    levels = np.full((4, 6), level, dtype=np.uint16)
    levels[0, 0] = 65535  # an image as dark as 8 bits can say is read as one of 8 bits
    for form in ("PNG", "TIFF"):
        image = decode(encode(Image.fromarray(levels), form), POLICY)
        assert image.getpixel((0, 0)) == (255, 255, 255)
        assert image.getpixel((5, 3)) == (grey, grey, grey)


def test_floating_point_from_zero_to_one_is_scaled(encode: Encode) -> None:
    levels = np.array([[0.0, 0.5, 1.0]], dtype=np.float32)
    image = decode(encode(Image.fromarray(levels), "TIFF"), POLICY)
    assert [image.getpixel((x, 0)) for x in range(3)] == [(0, 0, 0), (127, 127, 127), (255, 255, 255)]


def test_floating_point_without_a_number_is_black(encode: Encode) -> None:
    levels = np.array([[np.nan, 200.0]], dtype=np.float32)
    image = decode(encode(Image.fromarray(levels), "TIFF"), POLICY)
    assert [image.getpixel((x, 0)) for x in range(2)] == [(0, 0, 0), (200, 200, 200)]


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_the_colours_of_print(form: str, encode: Encode) -> None:
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    red, green, blue = decode(encode(cyan, form), POLICY).getpixel((8, 8))  # type: ignore[misc]
    assert red < 60
    assert min(green, blue) > 150


def test_rgb_is_handed_on_as_it_is() -> None:
    image = Image.new("RGB", (6, 4), RED)
    assert as_rgb(image) is image


@given(
    mode=st.sampled_from(["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"])
    | st.sampled_from(["LAB", "HSV", "I", "F", "I;16", "I;16B", "I;16L"]),
    width=st.integers(1, 40),
    height=st.integers(1, 40),
)
def test_every_mode_becomes_rgb_of_the_same_size(mode: str, width: int, height: int) -> None:
    image = as_rgb(Image.new(mode, (width, height)))
    assert (image.mode, image.size) == ("RGB", (width, height))


# --- Which way is up


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_camera_held_sideways_makes_an_upright_image(orientation: int, form: str, encode: Encode) -> None:
    # As stored for each orientation, the first pixel of the upright image is here.
    corner = {1: (0, 0), 2: (1, 0), 3: (1, 1), 4: (0, 1), 5: (0, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0)}
    width, height = (48, 32) if orientation < 5 else (32, 48)
    stored = Image.new("RGB", (width, height))
    x, y = corner[orientation]
    stored.paste(RED, (x * width // 2, y * height // 2, (x + 1) * width // 2, (y + 1) * height // 2))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(encode(stored, form, exif=exif), POLICY)
    opened = check_image(Image.open(io.BytesIO(encode(stored, form, exif=exif))), POLICY)
    # vLLM and transformers turn an image as its metadata says, which is done already.
    for upright in (image, opened, ImageOps.exif_transpose(image), ImageOps.exif_transpose(opened)):
        assert upright.size == (48, 32)
        assert _near(upright.crop((4, 4, 12, 12)), RED, 30)
        assert _near(upright.crop((36, 20, 44, 28)), (0, 0, 0), 30)


# --- JPEGs that may be decoded smaller


@pytest.mark.parametrize(
    ("least", "size"), [(1, (51, 38)), (100, (101, 75)), (150, (201, 150)), (400, (401, 299))]
)
def test_a_jpeg_is_decoded_at_the_smallest_size_that_is_allowed(
    least: int, size: tuple[int, int], encode: Encode
) -> None:
    whole = Image.linear_gradient("L").resize((401, 299)).convert("RGB")
    image = decode(encode(whole, "JPEG"), POLICY, lambda size, smaller: smaller[0] >= least)
    assert image.size == size
    assert abs(np.asarray(image.resize((20, 15)), int) - np.asarray(whole.resize((20, 15)), int)).max() <= 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_sizes_that_are_asked_about_are_those_of_the_upright_image(
    orientation: int, encode: Encode
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    asked = []

    def allows_downscaled_decode(whole: tuple[int, int], smaller: tuple[int, int]) -> bool:
        asked.append((whole, smaller))
        return smaller[0] > 100

    stored = (400, 200) if orientation < 5 else (200, 400)
    image = decode(encode(Image.new("RGB", stored, RED), "JPEG", exif=exif), POLICY, allows_downscaled_decode)
    assert asked == [((400, 200), (50, 25)), ((400, 200), (100, 50)), ((400, 200), (200, 100))]
    assert image.size == (200, 100)
    assert _near(image, RED)


@pytest.mark.parametrize("form", ["PNG", "WEBP", "GIF", "TIFF"])
def test_other_formats_come_whole(form: str, encode: Encode) -> None:
    image = decode(encode(Image.new("RGB", (400, 200), RED), form), POLICY, lambda *_: True)
    assert image.size == (400, 200)


def test_the_limit_on_pixels_is_that_of_the_whole_image(encode: Encode) -> None:
    content = encode(Image.new("RGB", (400, 200), RED), "JPEG")
    with pytest.raises(MediaError, match="400 × 200 pixels"):
        decode(content, MediaPolicy(max_pixels=50_000), lambda *_: True)


# --- Several frames


def test_the_first_frame_of_an_animation(encode: Encode) -> None:
    frames = [Image.new("RGB", (6, 4), colour) for colour in (RED, (0, 255, 0), (0, 0, 255))]
    for form in ("GIF", "WEBP", "TIFF", "PNG"):
        content = encode(frames[0], form, save_all=True, append_images=frames[1:])
        assert _near(decode(content, POLICY), RED), form


# --- Damage


@pytest.mark.parametrize("content", [b"\0", b"\0" * 1000])
def test_data_that_is_not_an_image_is_refused(content: bytes) -> None:
    with pytest.raises(MediaError, match="the data is not an image"):
        decode(content, POLICY)


@pytest.mark.parametrize("content", [b"GIF89a", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0"])
def test_the_beginning_of_an_image_is_a_damaged_one(content: bytes) -> None:
    with pytest.raises(MediaError, match="image is damaged or truncated"):
        decode(content, POLICY)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_an_image_that_is_cut_off_is_refused(form: str, encode: Encode) -> None:
    content = encode(Image.effect_noise((64, 64), 90).convert("RGB"), form)
    with pytest.raises(MediaError, match="damaged or truncated"):
        decode(content[: len(content) // 2], POLICY)


@settings(max_examples=200)
@given(data=st.data())
def test_damaged_data_is_an_image_or_a_media_error(data: st.DataObject) -> None:
    form = data.draw(st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "WEBP"]))
    file = io.BytesIO()
    Image.radial_gradient("L").resize((24, 16)).convert("RGB").save(file, form)
    content = bytearray(file.getvalue())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        image = decode(bytes(content), MediaPolicy(max_pixels=1_000_000))
    except MediaError:
        return
    assert image.mode == "RGB"


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF"])
def test_junk_behind_an_image_is_ignored(form: str, encode: Encode) -> None:
    assert _near(decode(encode(Image.new("RGB", (16, 16), RED), form) + b"junk" * 100, POLICY), RED, 8)


def test_one_bit_per_pixel(encode: Encode) -> None:
    image = Image.new("1", (16, 16), 1)
    for form, options in (("PNG", {}), ("TIFF", {"compression": "group4"}), ("BMP", {}), ("GIF", {})):
        assert _near(decode(encode(image, form, **options), POLICY), (255, 255, 255), 0), form


# --- Size


def _png_of(width: int, height: int) -> bytes:
    """A header that promises an image of this size, and next to no data."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 100)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(20_000, 20_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_a_bomb_is_refused_by_its_header(size: tuple[int, int]) -> None:
    with pytest.raises(MediaError, match=r"the image is too large|more than the 100,000,000 allowed"):
        decode(_png_of(*size), POLICY)


def test_the_limit_on_pixels_is_exact(encode: Encode) -> None:
    content = encode(Image.new("RGB", (20, 10)))
    assert decode(content, MediaPolicy(max_pixels=200)).size == (20, 10)
    with pytest.raises(MediaError) as caught:
        decode(content, MediaPolicy(max_pixels=199))
    assert str(caught.value) == (
        "the image has 20 × 10 pixels, more than the 199 allowed. "
        "Shrink it, or raise the limit (in Python: MediaPolicy(max_pixels=…))."
    )


# --- Images that a caller decoded


def test_a_callers_image_is_checked_like_any_other() -> None:
    assert _near(check_image(Image.new("RGBA", (6, 4), (*RED, 255)), POLICY), RED)
    with pytest.raises(MediaError, match="more than the 23 allowed"):
        check_image(Image.new("RGB", (6, 4)), MediaPolicy(max_pixels=23))
    with pytest.raises(MediaError, match="the image has no pixels"):
        check_image(Image.new("RGB", (0, 4)), POLICY)


def test_a_callers_image_whose_file_is_cut_off_is_refused(encode: Encode) -> None:
    content = encode(Image.effect_noise((64, 64), 90).convert("RGB"))
    opened = Image.open(io.BytesIO(content[: len(content) // 2]))
    with pytest.raises(MediaError, match="damaged or truncated"):
        check_image(opened, POLICY)


def test_a_callers_image_that_was_made_upright_stays_so(encode: Encode) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    image = Image.open(io.BytesIO(encode(Image.new("RGB", (32, 16), RED), "JPEG", exif=exif)))
    del image.getexif()[0x0112]
    checked = check_image(image, POLICY)
    assert checked.size == ImageOps.exif_transpose(checked).size == (32, 16)


def test_a_callers_image_is_not_changed() -> None:
    image = Image.new("RGB", (6, 4), RED)
    check_image(image, POLICY).putpixel((0, 0), (0, 0, 0))
    assert image.getpixel((0, 0)) == RED
