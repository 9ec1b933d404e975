"""Images with more than 8 bits per channel are scaled by the range that their data really uses."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vlm_run import MediaPolicy, MediaWarning
from vlm_run.media.decode import NOTE, decode

POLICY = MediaPolicy()
COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}


def png(levels: Any, significant: Sequence[int] | None = None) -> bytes:
    """A 16-bit PNG with (height, width) or (height, width, channels) values."""
    values = np.atleast_3d(np.asarray(levels))
    height, width, channels = values.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPES[channels], 0, 0, 0))]
    if significant is not None:
        parts.append(chunk(b"sBIT", bytes(significant)))
    return b"".join([b"\x89PNG\r\n\x1a\n", *parts, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")])


def tiff(levels: Any, photometric: int = 1, tags: Sequence[tuple[int, int, int]] = ()) -> bytes:
    """A 16-bit TIFF with (height, width) or (height, width, 3) values.

    Args:
        levels: The values.
        photometric: How values become colours: 0 inverted, 1 greyscale, 2 RGB.
        tags: The number, type and value of further tags.
    """
    values = np.atleast_3d(np.asarray(levels)).astype("<u2")
    height, width, channels = values.shape
    entries = [(256, 3, width), (257, 3, height), (259, 3, 1), (262, 3, photometric), (277, 3, channels)]
    entries += [(278, 3, height), (279, 4, values.nbytes), *tags]
    count = len(entries) + 2
    bits = struct.pack(f"<{channels}H", *[16] * channels)
    after = 8 + 2 + 12 * count + 4
    rows = [(number, kind, 1, struct.pack("<I", value)) for number, kind, value in entries]
    rows.append((273, 4, 1, struct.pack("<I", after + len(bits))))
    rows.append((258, 3, channels, bits.ljust(4, b"\0") if channels < 3 else struct.pack("<I", after)))
    directory = b"".join(struct.pack("<HHI", *row[:3]) + row[3] for row in sorted(rows))
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", count)
    return head + directory + struct.pack("<I", 0) + bits + values.tobytes()


def shades(content: bytes) -> Any:
    """The decoded red channel, and no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", MediaWarning)
        image = decode(content, POLICY)
    assert NOTE not in image.info
    return np.asarray(image)[..., 0]


def guessed(content: bytes) -> tuple[Any, str]:
    """The decoded red channel, and the note about how its range was derived."""
    with pytest.warns(MediaWarning, match="too bright or too dark"):
        image = decode(content, POLICY)
    return np.asarray(image)[..., 0], image.info[NOTE]


def ramp(top: int) -> Any:
    return np.linspace(0, top, 256).round().astype(int).reshape(16, 16)


RAMP = np.arange(256).reshape(16, 16)


# --- The range is declared


@pytest.mark.parametrize("bits", [9, 10, 12, 14, 15])
def test_the_significant_bits_of_a_png(bits: int) -> None:
    assert abs(shades(png(ramp(2**bits - 1), [bits])) - RAMP).max() <= 1


def test_significant_bits_matter_even_if_the_image_is_darker() -> None:
    assert shades(png(ramp(1000), [12])).max() == 1000 * 255 // 4095


@pytest.mark.parametrize("repeat", [False, True])
def test_significant_bits_that_were_scaled_up_as_the_standard_says(repeat: bool) -> None:
    values = ramp(4095 // 20)  # dark, but not because of its depth
    scaled = values << 4 | (values >> 8 if repeat else 0)
    assert abs(shades(png(scaled, [12])) - values / 16).max() <= 1


@pytest.mark.parametrize("tag", [281, 341])
def test_the_largest_sample_value_of_a_tiff(tag: int) -> None:
    assert abs(shades(tiff(ramp(4095), tags=[(tag, 3, 4095)])) - RAMP).max() <= 1
    assert shades(tiff(ramp(1000), tags=[(tag, 3, 4095)])).max() == 1000 * 255 // 4095


def test_a_tiff_of_twelve_bits_per_sample() -> None:
    values = np.repeat(np.linspace(0, 4095, 16).astype(int), 2)
    pairs = values.reshape(-1, 2)
    packed = bytes(
        byte for a, b in pairs for byte in (int(a) >> 4, (int(a) & 15) << 4 | int(b) >> 8, int(b) & 255)
    )
    rows = [(256, 3, 32), (257, 3, 1), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 122), (277, 3, 1)]
    rows += [(278, 3, 1), (279, 4, len(packed))]
    entries = b"".join(struct.pack("<HHII", number, kind, 1, value) for number, kind, value in rows)
    content = b"II*\0" + struct.pack("<IH", 8, len(rows)) + entries + bytes(4)
    assert shades(content + packed)[0, -1] == 255


def test_white_is_zero() -> None:
    assert abs(shades(tiff(ramp(65535), photometric=0)) - RAMP[::-1, ::-1]).max() <= 1


def test_sixteen_bits_in_full() -> None:
    assert abs(shades(png(ramp(65535))) - RAMP).max() <= 1
    assert abs(shades(png(np.dstack([ramp(65535)] * 3))) - RAMP).max() <= 1


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("bits", [10, 12, 14])
def test_the_significant_bits_of_a_colour_image(channels: int, bits: int) -> None:
    top = 2**bits - 1
    values = np.dstack([ramp(top)] * 3 + [np.full((16, 16), top)] * (channels - 3))
    assert abs(shades(png(values, [bits] * channels)) - RAMP).max() <= 1


# --- The range is derived


@pytest.mark.parametrize("make", [png, tiff])
@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_values_that_fit_fewer_bits(make: Any, bits: int) -> None:
    levels, note = guessed(make(ramp(2**bits - 1)))
    assert abs(levels - RAMP).max() <= 1
    assert note == (
        f"it does not declare its value range, and is read as {bits}-bit data because its largest value is "
        f"{2**bits - 1}"
    )


@pytest.mark.parametrize("make", [png, lambda values: tiff(values, photometric=2)])
@pytest.mark.parametrize("bits", [8, 10, 12])
def test_values_of_a_colour_image_that_fit_fewer_bits(make: Any, bits: int) -> None:
    levels, note = guessed(make(np.dstack([ramp(2**bits - 1), ramp(9), ramp(9)])))
    assert abs(levels - RAMP).max() <= 1
    assert f"{bits}-bit data" in note


def test_a_dark_photograph_of_sixteen_bits_stays_dark() -> None:
    assert shades(png(np.dstack([ramp(6000)] * 3))).max() == 6000 >> 8


def test_negative_values_are_scaled_from_black_to_white() -> None:
    file = io.BytesIO()
    Image.fromarray(np.linspace(-1000, 3000, 256).reshape(16, 16).astype("int32")).save(file, "TIFF")
    levels, note = guessed(file.getvalue())
    assert abs(levels - RAMP).max() <= 1
    assert note == "its values, from -1000 to 3000, are scaled from black to white"


def test_black_is_black() -> None:
    assert shades(png(np.zeros((4, 4)))).max() == 0


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=40), st.integers(1, 16) | st.none())
def test_any_values_keep_their_order_and_are_never_all_black(values: list[int], bits: int | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MediaWarning)
        image = decode(png([values], None if bits is None else [bits]), POLICY)
    shown = np.asarray(image)[0, :, 0].astype(int)
    order = np.argsort(values, kind="stable")
    assert (np.diff(shown[order]) >= 0).all()
    if bits is None and max(values) > 255:
        assert shown.max() >= 63
