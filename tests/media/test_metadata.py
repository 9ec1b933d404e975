"""Damaged or unusual metadata does not cost an image its pixels, its size limit or its orientation."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vlm_run import MediaPolicy
from vlm_run.errors import MediaError
from vlm_run.media.decode import check_image, decode
from vlm_run.media.metadata import without_metadata

POLICY = MediaPolicy()
Encode = Callable[..., bytes]
ORIENTATION = 0x0112
TYPES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
"""TIFF's field types with the size of a value in bytes."""


def quarters() -> Image.Image:
    """An image whose four quarters differ, 32 × 16."""
    image = Image.new("RGB", (32, 16), (220, 20, 20))
    image.paste((20, 220, 20), (16, 0, 32, 8))
    image.paste((20, 20, 220), (0, 8, 16, 16))
    image.paste((220, 220, 220), (16, 8, 32, 16))
    return image


def stored_for(orientation: int) -> Image.Image:
    """`quarters` as a camera stores it for an orientation."""
    inverse = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    return quarters().transpose(inverse[orientation]) if orientation in inverse else quarters()


def is_upright(image: Image.Image) -> bool:
    if image.size != (32, 16):
        return False
    return bool(abs(np.asarray(image, int) - np.asarray(quarters(), int)).mean() < 12)


def exif(orientation: int, *entries: tuple[int, int, int, bytes]) -> bytes:
    """An EXIF block with an orientation and further entries: tag, type, count and value or offset."""
    rows = sorted([(ORIENTATION, 3, 1, struct.pack("<HH", orientation, 0)), *entries])
    body = b"".join(struct.pack("<HHI", *row[:3]) + row[3][:4].ljust(4, b"\0") for row in rows)
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(rows))
    return b"Exif\0\0" + head + body + struct.pack("<I", 0) + struct.pack("<ii", -1, 0) * 4


def png_chunk(kind: bytes, data: bytes, checksum: int | None = None) -> bytes:
    checksum = zlib.crc32(kind + data) if checksum is None else checksum
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def with_chunk(png: bytes, chunk: bytes, *, at_end: bool = False) -> bytes:
    """A PNG with a chunk behind its header, or before its end."""
    place = len(png) - 12 if at_end else 33
    return png[:place] + chunk + png[place:]


# --- EXIF


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "entry",
    [
        (0x0128, 4, 1, struct.pack("<I", 70000)),  # a resolution unit that does not fit its type
        (0x011A, 5, 1, struct.pack("<I", 60)),  # an unsigned rational whose data is -1/0
        (0x010F, 2, 1000, struct.pack("<I", 4_000_000)),  # text beyond the end
        (0x8769, 4, 1, struct.pack("<I", 8)),  # a directory that contains itself
        (0x010E, 0, 1, b"\0\0\0\0"),  # an unknown type
    ],
)
def test_an_image_is_upright_whatever_its_other_tags_are(
    orientation: int, form: str, entry: tuple[int, int, int, bytes], encode: Encode
) -> None:
    content = encode(stored_for(orientation), form, exif=exif(orientation, entry), quality=95)
    assert is_upright(decode(content, POLICY))


@settings(max_examples=150, deadline=None)
@given(
    orientation=st.integers(1, 8),
    tag=st.integers(1, 0xFFFF).filter(lambda tag: tag != ORIENTATION),
    kind=st.integers(0, 15),
    count=st.integers(0, 2**32 - 1) | st.integers(0, 8),
    value=st.binary(min_size=4, max_size=4),
    form=st.sampled_from(["JPEG", "PNG", "WEBP"]),
)
def test_an_image_is_upright_beside_any_tag(
    orientation: int, tag: int, kind: int, count: int, value: bytes, form: str
) -> None:
    file = io.BytesIO()
    block = exif(orientation, (tag, kind, count, value))
    stored_for(orientation).save(file, form, exif=block, quality=95)
    assert is_upright(decode(file.getvalue(), POLICY))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_avif_is_upright_even_if_its_exif_data_is_damaged(orientation: int, encode: Encode) -> None:
    entry = (0x0128, 3, 1, struct.pack("<HH", 2, 0))
    content = encode(stored_for(orientation), "AVIF", exif=exif(orientation, entry), quality=95)
    assert is_upright(decode(content, POLICY))
    tag = struct.pack("<HHI", 0x0128, 3, 1)
    assert content.count(tag) == 1
    damaged = content.replace(tag, struct.pack("<HHI", 0x011A, 5, 1))
    assert is_upright(decode(damaged, POLICY))


@given(st.binary(max_size=200))
def test_damaged_exif_data_leaves_an_image_as_it_is_stored(block: bytes) -> None:
    file = io.BytesIO()
    quarters().save(file, "JPEG", exif=b"Exif\0\0" + block, quality=95)
    assert sorted(decode(file.getvalue(), POLICY).size) == [16, 32]


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_changes_nothing(value: int, encode: Encode) -> None:
    assert is_upright(decode(encode(quarters(), "JPEG", exif=exif(value), quality=95), POLICY))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_that_a_caller_opened_is_upright_too(orientation: int, encode: Encode) -> None:
    entry = (0x0128, 4, 1, struct.pack("<I", 70000))
    content = encode(stored_for(orientation), "JPEG", exif=exif(orientation, entry), quality=95)
    assert is_upright(check_image(Image.open(io.BytesIO(content)), POLICY))


@settings(max_examples=60, deadline=None)
@given(
    orientation=st.integers(1, 8),
    tag=st.sampled_from([269, 270, 305, 315, 700, 33723, 34377, 34665, 34853, 40965, 37724, 51000]),
    value=st.integers(0, 2**32 - 1) | st.text(st.characters(codec="ascii"), max_size=20),
)
def test_a_tiff_is_upright_beside_any_tag(orientation: int, tag: int, value: int | str) -> None:
    file = io.BytesIO()
    info: Any = {tag: value, ORIENTATION: orientation}
    try:
        stored_for(orientation).save(file, "TIFF", tiffinfo=info)
    except Exception:  # Pillow cannot write the tag with such a value
        return
    assert is_upright(decode(file.getvalue(), POLICY))


# --- PNG chunks


BOMB = zlib.compress(bytes(2_000_000))
CHUNKS = {
    "zTXt over Pillow's limit": png_chunk(b"zTXt", b"key\0\0" + BOMB),
    "iTXt over Pillow's limit": png_chunk(b"iTXt", b"key\0\1\0\0\0" + BOMB),
    "iCCP over Pillow's limit": png_chunk(b"iCCP", b"name\0\0" + BOMB),
    "iCCP that is not compressed": png_chunk(b"iCCP", b"name\0\0" + b"not zlib"),
    "iCCP without a name": png_chunk(b"iCCP", b""),
    "zTXt with an unknown method": png_chunk(b"zTXt", b"key\0\7" + b"data"),
    "tEXt with a wrong checksum": png_chunk(b"tEXt", b"key\0text", 1),
    "tIME with a wrong checksum": png_chunk(b"tIME", bytes(7), 1),
    "pHYs that is too short": png_chunk(b"pHYs", b"\0"),
    "cHRM that is too short": png_chunk(b"cHRM", b"\0"),
    "gAMA that is too short": png_chunk(b"gAMA", b""),
    "sRGB that is empty": png_chunk(b"sRGB", b""),
    "eXIf with a wrong checksum": png_chunk(b"eXIf", b"II*\0", 1),
    "acTL that is too short": png_chunk(b"acTL", b"\0"),
    "a private chunk with a wrong checksum": png_chunk(b"prVt", b"data", 1),
    "65 texts of 1 MB": png_chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(1_000_000))) * 66,
}


@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize("name", CHUNKS)
def test_a_png_is_decoded_whatever_its_ancillary_chunks_are(name: str, at_end: bool, encode: Encode) -> None:
    content = with_chunk(encode(quarters()), CHUNKS[name], at_end=at_end)
    assert np.array_equal(np.asarray(decode(content, POLICY)), np.asarray(quarters()))


@settings(max_examples=100, deadline=None)
@given(
    kind=st.from_regex(rb"[a-z][A-Za-z][A-Z][A-Za-z]", fullmatch=True).filter(
        lambda kind: kind not in (b"tRNS", b"eXIf", b"fcTL", b"fdAT")
    ),
    data=st.binary(max_size=60),
    checksum=st.none() | st.integers(0, 2**32 - 1),
)
def test_any_ancillary_chunk_leaves_the_pixels_alone(kind: bytes, data: bytes, checksum: int | None) -> None:
    file = io.BytesIO()
    quarters().save(file, "PNG")
    content = with_chunk(file.getvalue(), png_chunk(kind, data, checksum))
    assert np.array_equal(np.asarray(decode(content, POLICY)), np.asarray(quarters()))


def test_what_affects_the_pixels_is_kept_when_metadata_is_removed(encode: Encode) -> None:
    image = Image.new("P", (6, 4), 1)
    image.putpalette([0, 0, 0, 200, 10, 30])
    content = with_chunk(encode(image, transparency=1, exif=exif(6)), CHUNKS["iCCP without a name"])
    assert decode(content, POLICY).size == (4, 6)
    assert decode(content, POLICY).getpixel((0, 0)) == (255, 255, 255)


def test_a_damaged_critical_chunk_is_told(encode: Encode) -> None:
    content = bytearray(encode(quarters()))
    content[20] ^= 0xFF  # in the header, whose checksum is then wrong
    with pytest.raises(MediaError, match="the PNG image is damaged or truncated: broken PNG file"):
        decode(bytes(content), POLICY)


def test_limits_hold_for_images_with_odd_metadata(encode: Encode) -> None:
    content = with_chunk(encode(quarters()), CHUNKS["zTXt over Pillow's limit"])
    with pytest.raises(MediaError, match="32 × 16 pixels, more than the 500 allowed"):
        decode(content, MediaPolicy(max_pixels=500))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF"])
def test_an_image_without_its_metadata_has_the_same_pixels(form: str, encode: Encode) -> None:
    content = encode(quarters(), form, exif=exif(6)) if form in ("PNG", "JPEG") else encode(quarters(), form)
    bare = without_metadata(content)
    assert np.array_equal(np.asarray(decode(bare, POLICY)), np.asarray(decode(content, POLICY)))


@given(st.binary(max_size=300), st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"\0\0\0\x1cftypavif"]))
def test_removing_metadata_never_fails(content: bytes, start: bytes) -> None:
    without_metadata(start + content)


# --- JPEG segments


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


@settings(max_examples=100, deadline=None)
@given(
    marker=st.integers(0xE0, 0xEF) | st.just(0xFE),
    name=st.sampled_from(
        [
            b"ICC_PROFILE\0",
            b"MPF\0",
            b"Exif\0\0",
            b"JFIF\0",
            b"Photoshop 3.0\0",
            b"http://ns.adobe.com/xap/1.0/\0",
            b"",
        ]
    ),
    data=st.binary(max_size=60),
)
def test_any_application_segment_leaves_a_jpeg_alone(marker: int, name: bytes, data: bytes) -> None:
    file = io.BytesIO()
    quarters().save(file, "JPEG", quality=95)
    jpeg = file.getvalue()
    image = decode(jpeg[:2] + segment(marker, name + data) + jpeg[2:], POLICY)
    assert sorted(image.size) == [16, 32]


@pytest.mark.parametrize(("marker", "data"), [(0xE0, b"JFIF\0"), (0xEE, b"Adobe"), (0xE2, b"ICC_PROFILE\0")])
def test_an_application_segment_that_is_too_short_is_ignored(
    marker: int, data: bytes, encode: Encode
) -> None:
    jpeg = encode(quarters(), "JPEG", quality=95)
    assert is_upright(decode(jpeg[:2] + segment(marker, data) + jpeg[2:], POLICY))


def test_an_image_in_print_colours_keeps_them_without_metadata(encode: Encode) -> None:
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    content = encode(cyan, "JPEG")
    assert b"Adobe" in content
    red, green, blue = decode(without_metadata(content), POLICY).getpixel((8, 8))  # type: ignore[misc]
    assert red < 60
    assert min(green, blue) > 150


# --- Truncation


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF"])
def test_a_truncated_image_is_refused_with_its_format(form: str, encode: Encode) -> None:
    noise = Image.frombytes("RGB", (64, 64), random.Random(1).randbytes(64 * 64 * 3))
    content = encode(noise, form)
    with pytest.raises(MediaError, match=f"the {form} image is damaged or truncated: ."):
        decode(content[: len(content) // 2], POLICY)
