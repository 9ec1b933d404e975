"""JSON files: JSON Lines, arrays of objects, and objects one after the other.

All are parsed by Python's `json`, with the same tolerance: NaN, numbers of any size and control characters in
strings are accepted, and an entry that is not valid JSON costs its own row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from vlm_run.batch.row import Columns
from vlm_run.batch.sources.source import Source
from vlm_run.batch.sources.text_file import TextFile, read_through
from vlm_run.errors import ConversationError, VlmRunError, as_request_error

_CHUNK = 1 << 18
_DECODER = json.JSONDecoder(strict=False)
_SPACE = re.compile(r"[ \t\n\r]*")
_STRUCTURE = re.compile(r'["\[\]{},]')
_STRING_END = re.compile(r'(?:[^"\\]|\\.)*"', re.DOTALL)


def json_file(path: Path, encoding: str | None) -> Source:
    """Return the rows of a JSON file.

    Raises:
        VlmRunError: It is in another encoding, or an array in it is not complete.
    """
    file = read_through(path, encoding)
    with file.open("\n") as text:
        start = text.read(_CHUNK).lstrip()
    directory = path.resolve().parent
    if start.startswith("["):
        # Counted in advance, so that a file that was cut off is reported before the engine starts.
        total = sum(1 for _ in _read_entries(file))
        return Source(file.identity, lambda: _read_entries(file), total, directory)
    if path.suffix.lower() == ".json" and not _is_json(start.partition("\n")[0]):
        total = sum(1 for _ in _read_entries(file))
        return Source(file.identity, lambda: _read_entries(file), total, directory)
    return Source(file.identity, lambda: _read_lines(file), file.lines, directory)


def _is_json(text: str) -> bool:
    try:
        json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return False
    return True


def _read_lines(file: TextFile) -> Iterator[Columns]:
    with file.open("\n") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _parse(line, file, f"line {number}")


def _parse(text: str, file: TextFile, place: str) -> Columns:
    """Parse the JSON object of a row."""
    try:
        file.check(text, place)
        columns = json.loads(text, strict=False)
    except RecursionError:
        return ConversationError(f"{place} is nested too deeply")
    except ValueError as error:
        return ConversationError(f"{place} is not JSON: {error}")
    except Exception as error:
        return as_request_error(error)
    return columns if isinstance(columns, dict) else _not_an_object(columns, place)


def _not_an_object(value: Any, place: str) -> ConversationError:
    return ConversationError(f"{place} is not a JSON object, but of type {type(value).__name__}")


def _read_entries(file: TextFile) -> Iterator[Columns]:
    """Read the entries of an array, or objects that follow one another, without holding them all."""
    with file.open("\n") as text:
        for number, entry in enumerate(_split_entries(text, file.path), 1):
            yield _parse(entry, file, f"entry {number}")


def _split_entries(text: IO[str], path: Path) -> Iterator[str]:
    """Yield the text of each entry.

    Raises:
        VlmRunError: The file ends within an array or an entry, or continues after the array.
    """
    buffer = _Buffer(text)
    is_array = buffer.skip("[")
    if is_array and buffer.skip("]"):
        return
    while buffer.next_character():
        entry = buffer.take_entry()
        if entry is None or (not entry and not is_array):
            break
        yield entry
        if not is_array:
            continue
        if buffer.skip("]"):
            if buffer.next_character():
                raise VlmRunError(f"{path} continues after the end of its JSON array")
            return
        if not buffer.skip(","):
            raise VlmRunError(f"{path} is not a complete JSON array")
        if buffer.skip("]"):  # a comma after the last entry
            return
    if is_array or buffer.next_character():
        raise VlmRunError(f"{path} is not a complete JSON {'array' if is_array else 'object'}")


class _Buffer:
    """The part of a file that is being read."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._text = ""
        self._position = 0

    def next_character(self) -> str:
        """Return the next character that is not white space; empty at the end of the file."""
        while True:
            # `_SPACE` matches everywhere, if only nothing.
            self._position = _SPACE.match(self._text, self._position).end()  # type: ignore[union-attr]
            if self._position < len(self._text) or not self._read_more():
                return self._text[self._position : self._position + 1]

    def skip(self, character: str) -> bool:
        """Move past a character if it is the next one."""
        found = self.next_character() == character
        self._position += found
        return found

    def take_entry(self) -> str | None:
        """Return the text up to the next comma or closing bracket outside the entry, or its end.

        None if the file ends first.
        """
        size = _CHUNK
        while True:
            end = self._end_of_value() or self._end_by_structure()
            if end is not None:
                entry, self._position = self._text[self._position : end], end
                return entry
            if not self._read_more(size):
                return None
            size *= 2  # so that an entry of many chunks is not scanned once for each

    def _end_of_value(self) -> int | None:
        """Return the end of the next entry if it is an object; parsed in C, this is the fast path."""
        if not self._text.startswith("{", self._position):
            return None
        try:
            return _DECODER.raw_decode(self._text, self._position)[1]
        except (ValueError, RecursionError):
            return None

    def _end_by_structure(self) -> int | None:
        """Return the end of an entry that is not a valid object, found by its quotes and brackets."""
        depth, position = 0, self._position
        while found := _STRUCTURE.search(self._text, position):
            position = found.end()
            character = found[0]
            if character == '"':
                string = _STRING_END.match(self._text, position)
                if string is None:
                    return None
                position = string.end()
            elif character in "[{":
                depth += 1
            elif depth == 0:  # a comma, or the end of the array
                return found.start()
            elif character in "]}":
                depth -= 1
                if depth == 0 and self._text[self._position] == "{":
                    return position
        return None

    def _read_more(self, size: int = _CHUNK) -> bool:
        more = self._file.read(size)
        self._text = self._text[self._position :] + more
        self._position = 0
        return bool(more)
