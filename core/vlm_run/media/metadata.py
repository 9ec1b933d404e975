"""Reads orientations and removes metadata without a decoder that fails where metadata is damaged."""

from __future__ import annotations

import re
import struct
import zlib

_PNG = b"\x89PNG\r\n\x1a\n"
# Ancillary PNG chunks that change the decoded pixels: transparency and orientation.
_PNG_KEPT = (b"tRNS", b"eXIf")
_JPEG = b"\xff\xd8"
# JPEG's application segments with the colour space (JFIF, Adobe) and the orientation (Exif): name and size.
_JPEG_KEPT = {0xE0: (b"JFIF\0", 14), 0xE1: (b"Exif\0\0", 6), 0xEE: (b"Adobe", 12)}
_START_OF_SCAN = 0xDA
_ORIENTATION = 0x0112
_INTEGERS = {1: "B", 3: "H", 4: "I"}  # EXIF's types BYTE, SHORT and LONG
# The entry of an AVIF's item list that names an Exif item.
_AVIF_EXIF = re.compile(rb"(infe.{8})Exif", re.DOTALL)


def exif_orientation(block: bytes) -> int | None:
    """The orientation in an EXIF block, whatever its other tags are; None if there is none.

    Pillow stops reading at the first tag whose data is out of place.
    """
    block = block.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        return None
    try:
        (directory,) = struct.unpack_from(f"{order}I", block, 4)
        (entries,) = struct.unpack_from(f"{order}H", block, directory)
        for place in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, kind = struct.unpack_from(f"{order}HH", block, place)
            if tag == _ORIENTATION and kind in _INTEGERS:
                return int(struct.unpack_from(order + _INTEGERS[kind], block, place + 8)[0])
    except struct.error:  # the block is truncated
        return None
    return None


def without_metadata(content: bytes) -> bytes:
    """The encoded image without its optional metadata; unchanged if there is none or the format has none.

    Pixels, transparency, colour space and orientation stay.
    """
    if content.startswith(_PNG):
        return _png(content)
    if content.startswith(_JPEG):
        return _jpeg(content)
    if content[4:8] == b"ftyp":
        return _AVIF_EXIF.sub(rb"\1free", content, count=1)  # libavif keeps the rotation in a box of its own
    return content


def png_chunks(content: bytes) -> list[tuple[bytes, bytes, bytes]]:
    """The chunks of a PNG: type, data and the stored checksum. A truncated chunk is the last one."""
    chunks = []
    position = len(_PNG)
    while position + 8 <= len(content):
        length = int.from_bytes(content[position : position + 4], "big")
        end = position + 8 + length
        kind = content[position + 4 : position + 8]
        chunks.append((kind, content[position + 8 : end], content[end : end + 4]))
        position = end + 4
    return chunks


def _png(content: bytes) -> bytes:
    kept = [_PNG]
    for kind, data, checksum in png_chunks(content):
        critical = not kind[:1].islower()
        intact = checksum == struct.pack(">I", zlib.crc32(kind + data))
        if critical or (kind in _PNG_KEPT and intact):
            kept.append(struct.pack(">I", len(data)) + kind + data + checksum)
    return b"".join(kept)


def _jpeg(content: bytes) -> bytes:
    kept = [_JPEG]
    position = len(_JPEG)
    while position + 4 <= len(content) and content[position] == 0xFF:
        marker = content[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker == _START_OF_SCAN:
            break
        end = position + 2 + int.from_bytes(content[position + 2 : position + 4], "big")
        segment = content[position:end]
        if not _is_optional(marker, segment[4:]):
            kept.append(segment)
        position = end
    return b"".join([*kept, content[position:]])


def _is_optional(marker: int, data: bytes) -> bool:
    """Whether a JPEG segment is a comment or an application segment that does not affect the pixels."""
    if marker == 0xFE:
        return True
    if not 0xE0 <= marker <= 0xEF:
        return False
    if marker not in _JPEG_KEPT:
        return True
    name, size = _JPEG_KEPT[marker]
    return not data.startswith(name) or len(data) < size
