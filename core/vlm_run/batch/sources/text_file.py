"""Text files: their encoding, and what identifies them.

A byte that the encoding does not allow is never replaced: it becomes a lone surrogate, which the readers
refuse, so that it costs its own row. A file in which most lines have such bytes is in another encoding, and
is refused as a whole.
"""

from __future__ import annotations

import codecs
import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from vlm_run.errors import ConversationError, VlmRunError

# Longest first, since UTF-32's begins with UTF-16's.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_UNDECODABLE = re.compile("[\udc80-\udcff]")
_SAMPLE_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class TextFile:
    """A text file that has been read through once.

    Attributes:
        path: The file.
        encoding: The encoding in which it is read.
        identity: Its size and hash.
        lines: Number of lines that are not blank.
    """

    path: Path
    encoding: str
    identity: dict[str, Any]
    lines: int

    def open(self, newline: str) -> IO[str]:
        """Open the file.

        Args:
            newline: As for `open`.
        """
        errors = "surrogatepass" if _is_wide(self.encoding) else "surrogateescape"
        return self.path.open(encoding=self.encoding, errors=errors, newline=newline)

    def check(self, text: str, place: str) -> None:
        """Raise `ConversationError` if a text of the file has bytes that the encoding does not allow."""
        if not text.isascii() and (found := _UNDECODABLE.search(text)):
            raise ConversationError(
                f"{place} has the byte 0x{ord(found[0]) - 0xDC00:02X}, which is not valid "
                f"{self.encoding.removesuffix('-sig').upper()}",
                hint="Give the file's encoding with --encoding, or correct the row.",
            )


def read_through(path: Path, encoding: str | None = None) -> TextFile:
    """Read a text file once, to identify it and to check its encoding.

    Args:
        path: The file.
        encoding: Its encoding; None for UTF-8, or what its byte order mark says.

    Raises:
        VlmRunError: The encoding is unknown, or most lines are in another one.
    """
    encoding = _known(encoding) if encoding else _by_byte_order_mark(path)
    digest, lines, valid, invalid = hashlib.blake2b(digest_size=16), 0, 0, 0
    sample = bytearray()
    with path.open("rb") as content:
        for line in content:
            digest.update(line)
            lines += not line.isspace()
            if line.isascii() or _is_wide(encoding):
                continue
            try:
                line.decode(encoding)
                valid += 1
            except UnicodeDecodeError:
                invalid += 1
                if len(sample) < _SAMPLE_BYTES:
                    sample += line
    if invalid > valid and 2 * invalid > lines:
        raise _wrong_encoding(path, encoding, bytes(sample[:_SAMPLE_BYTES]))
    identity = {"bytes": path.stat().st_size, "blake2b": digest.hexdigest()}
    if encoding != "utf-8-sig":
        identity["encoding"] = encoding
    file = TextFile(path, encoding, identity, lines)
    if _is_wide(encoding):  # whose line breaks are not single bytes
        with file.open("\n") as text:
            file = replace(file, lines=sum(not line.isspace() for line in text))
    return file


def _is_wide(encoding: str) -> bool:
    return encoding.startswith(("utf-16", "utf-32"))


def _known(encoding: str) -> str:
    try:
        name = codecs.lookup(encoding).name
        b"".decode(name)  # not one of Python's codecs that are not for text
    except LookupError:
        raise VlmRunError(
            f"unknown --encoding '{encoding}'", hint="Examples: utf-8, gbk, cp1252, shift_jis, utf-16."
        ) from None
    return "utf-8-sig" if name == "utf-8" else name


def _by_byte_order_mark(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(4)
    return next((name for mark, name in _BYTE_ORDER_MARKS if start.startswith(mark)), "utf-8-sig")


def _wrong_encoding(path: Path, encoding: str, sample: bytes) -> VlmRunError:
    from charset_normalizer import from_bytes

    best = from_bytes(sample).best()
    cause = f"{path} is not in {encoding.removesuffix('-sig').upper()}"
    if best is None:
        return VlmRunError(cause, hint="Give its encoding with --encoding.")
    shown = " ".join(str(best).split())[:40]
    return VlmRunError(
        cause,
        hint=f"Give its encoding with --encoding. It may be {best.encoding}, which reads: {shown}",
    )
