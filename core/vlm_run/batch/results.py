"""The result file: one JSON line per row, which survives a kill at any moment.

The manifest OUT.jsonl.run.json beside OUT.jsonl describes the run that it belongs to. A row is finished if
its line is complete. A line is one `write`, so that a killed process loses no line that it wrote; `fsync`
follows within a second, in case the machine loses power.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from vlm_run.errors import VlmRunError

SYNC_INTERVAL_S = 1.0
"""How long a written line can be lost to a power failure."""
_FORMAT = 1


class ResultFile:
    """A result file, opened by one run at a time.

    Args:
        path: The file. Its directory is created.
        run: What the answers depend on; the file of a run that differs is refused.
        retry_errors: Whether rows that failed count as unfinished.

    Attributes:
        path: The file.
        kept: Number of rows that were finished when the file was opened.

    Raises:
        VlmRunError: Another process writes to the file, it belongs to another run, or it is not a result
            file.
    """

    def __init__(self, path: Path, run: Mapping[str, Any], *, retry_errors: bool = False) -> None:
        self.path = path
        self._done = bytearray()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._manifest = open(_manifest_path(path), "a+b")  # noqa: SIM115  (open as long as this object)
        except OSError as error:
            raise VlmRunError(f"{path} cannot be written: {error.strerror}") from None
        try:
            self._lock()
            self._check_run(run)
            if path.exists():
                self._resume(retry_errors)
            self._file = open(path, "ab", buffering=0)  # noqa: SIM115
        except BaseException:
            self._manifest.close()
            raise
        self.kept = self._done.count(1)
        self._unsynced = threading.Event()
        self._closing = threading.Event()
        self._failed_sync: OSError | None = None
        _sync_directory(path.parent)
        self._syncer = threading.Thread(target=self._sync_periodically, name="result file", daemon=True)
        self._syncer.start()

    def has(self, number: int) -> bool:
        """Whether the row with this number is finished."""
        return number < len(self._done) and self._done[number] == 1

    def write(self, line: Mapping[str, Any]) -> None:
        """Write the line of a row.

        Args:
            line: The line; `line["row"]` is the row's number.

        Raises:
            VlmRunError: The file cannot be written, or has the row already.
        """
        number = line["row"]
        if self.has(number):
            raise VlmRunError(f"row {number} is in {self.path} already")
        self._check_synced()
        left = memoryview(_encoded(line))
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            raise VlmRunError(
                f"{self.path} cannot be written: {error.strerror}",
                hint="Free some space, and run the same command again to resume.",
            ) from error
        _mark(self._done, number)
        self._unsynced.set()

    def put_in_order(self) -> None:
        """Sort the lines by row, if rows were retried or written as they finished."""
        numbers, offsets = array("Q"), array("Q")
        for line, offset, _ in _lines(self.path):
            numbers.append(line["row"])
            offsets.append(offset)
        if all(numbers[i] < numbers[i + 1] for i in range(len(numbers) - 1)):
            return
        order = sorted(range(len(numbers)), key=numbers.__getitem__)
        with self.path.open("rb") as old:

            def in_order() -> Iterator[bytes]:
                for index in order:
                    old.seek(offsets[index])
                    yield old.readline()

            self._replace(in_order())
        with self.path.open("ab") as new:
            os.dup2(new.fileno(), self._file.fileno())  # later writes go to the new file

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield the lines of the file."""
        for line, _, _ in _lines(self.path):
            yield line

    def close(self) -> None:
        """Sync and close the file. Safe to call twice.

        Raises:
            VlmRunError: The last lines could not be synced.
        """
        if self._manifest.closed:
            return
        self._closing.set()
        self._unsynced.set()
        self._syncer.join()
        self._file.close()
        self._manifest.close()
        self._check_synced()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_synced(self) -> None:
        if self._failed_sync is not None:
            raise VlmRunError(f"{self.path} cannot be written: {self._failed_sync.strerror}")

    def _lock(self) -> None:
        try:
            fcntl.flock(self._manifest, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise VlmRunError(
                f"another process is writing to {self.path}",
                hint="Wait for it, or choose another --result-path.",
            ) from None

    def _check_run(self, run: Mapping[str, Any]) -> None:
        self._manifest.seek(0)
        content = self._manifest.read()
        has_rows = self.path.exists() and self.path.stat().st_size > 0
        try:
            begun = json.loads(content)
        except ValueError:
            # It is synced before the first row is written: if it is incomplete, there are no rows to lose.
            if has_rows:
                beside = _manifest_path(self.path).name
                raise VlmRunError(
                    f"{self.path} exists without {beside}, which describes the run that it belongs to",
                    hint="Choose another --result-path.",
                ) from None
        else:
            now = json.loads(json.dumps({"format": _FORMAT, **run}, default=str))
            changes = list(_changes(begun, now))
            if not changes:
                return
            if has_rows:
                raise VlmRunError(
                    f"{self.path} belongs to another run: {'; '.join(changes[:4])}",
                    hint="Choose another --result-path, or delete the file to start over.",
                )
        self._manifest.truncate(0)
        self._manifest.write(json.dumps({"format": _FORMAT, **run}, indent=1, default=str).encode() + b"\n")
        self._manifest.flush()
        os.fsync(self._manifest.fileno())

    def _resume(self, retry_errors: bool) -> None:
        """Mark the finished rows, and remove an incomplete line at the end of the file."""
        end, failed = 0, 0
        for line, _, after in _lines(self.path):
            if self.has(line["row"]):
                raise VlmRunError(
                    f"{self.path} has row {line['row']} twice", hint="Choose another --result-path."
                )
            if retry_errors and "error" in line:
                failed += 1
            else:
                _mark(self._done, line["row"])
            end = after
        if end < self.path.stat().st_size:
            os.truncate(self.path, end)
        if failed:
            with self.path.open("rb") as old:
                self._replace(line for line in old if "error" not in json.loads(line))

    def _replace(self, lines: Iterator[bytes]) -> None:
        """Replace the file atomically."""
        new = self.path.with_name(f"{self.path.name}.new")
        with new.open("wb") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, self.path)
        _sync_directory(self.path.parent)

    def _sync_periodically(self) -> None:
        while not self._closing.is_set():
            self._unsynced.wait()
            self._unsynced.clear()
            self._sync()
            self._closing.wait(SYNC_INTERVAL_S)
        self._sync()

    def _sync(self) -> None:
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            self._failed_sync = error


def _lines(path: Path) -> Iterator[tuple[dict[str, Any], int, int]]:
    """Yield each complete line with its offset and the next line's.

    Raises:
        VlmRunError: A line before the last is not a result.
    """
    with path.open("rb") as file:
        offset = 0
        while raw := file.readline():
            line = _decoded(raw)
            if line is None:
                if _is_last(file):
                    return
                raise VlmRunError(
                    f"{path} is damaged at byte {offset}: the line there is not a result",
                    hint="Choose another --result-path.",
                )
            yield line, offset, offset + len(raw)
            offset += len(raw)


def _decoded(raw: bytes) -> dict[str, Any] | None:
    if not raw.endswith(b"\n"):
        return None
    try:
        line = json.loads(raw)
    except ValueError:
        return None
    is_result = isinstance(line, dict) and isinstance(line.get("row"), int) and line["row"] >= 0
    return line if is_result else None


def _is_last(file: BinaryIO) -> bool:
    return not file.read(1)


def _encoded(line: Mapping[str, Any]) -> bytes:
    try:
        return (json.dumps(line, ensure_ascii=False, default=str) + "\n").encode()
    except UnicodeEncodeError:  # a lone surrogate, which only a JSON escape can represent
        return (json.dumps(line, default=str) + "\n").encode()


def _mark(done: bytearray, number: int) -> None:
    if number >= len(done):
        done.extend(bytes(max(number + 1 - len(done), len(done), 1024)))
    done[number] = 1


def _changes(begun: Any, now: Any, name: str = "") -> Iterator[str]:
    """Describe the differences."""
    if isinstance(begun, dict) and isinstance(now, dict):
        for key in sorted({*begun, *now}):
            yield from _changes(begun.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif begun != now:
        yield f"{name} was {_short(begun)}, is {_short(now)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _manifest_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.run.json")


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
