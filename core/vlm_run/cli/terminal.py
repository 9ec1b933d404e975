"""The terminal of an interactive session: lines, interrupts and dropped files."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from types import FrameType

DROPPED_FILE = re.compile(r"""'(?:/|file://)[^']+'|"(?:/|file://)[^"]+"|(?:/|file://)(?:\\.|[^\s'"\\])+""")
"""A file as terminals paste it when it is dropped on them: quoted, with backslashes, or as a URL."""
# Further interrupts within this time are taken for the same one.
_DEBOUNCE_S = 1.0


class LineDropped(Exception):
    """Ctrl-C was pressed while a line was read."""


class LineReader:
    """Reads lines: with history and line editing on a terminal, plainly elsewhere."""

    def __init__(self) -> None:
        self._session: Any = None
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            return
        from prompt_toolkit import PromptSession
        from prompt_toolkit.history import FileHistory
        from prompt_toolkit.key_binding import KeyBindings

        keys = KeyBindings()
        keys.add("escape", "enter")(lambda event: event.current_buffer.insert_text("\n"))
        self._session = PromptSession(history=FileHistory(str(_history_file())), key_bindings=keys)

    def __call__(self, prompt: str) -> str | None:
        """Return the next line, or None at the end of input.

        Raises:
            LineDropped: Ctrl-C was pressed.
        """
        try:
            return self._edit(prompt) if self._session else input(prompt)
        except EOFError:
            return None
        except KeyboardInterrupt:
            raise LineDropped from None

    def _edit(self, prompt: str) -> str:
        # During editing, Ctrl-C is a key like any other. As a signal, it could reach the editor before
        # it has taken over the terminal.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            return str(self._session.prompt(prompt, handle_sigint=False))
        finally:
            signal.signal(signal.SIGINT, before)


class InterruptHandler:
    """Lets Ctrl-C interrupt the current turn of a session, and ignores it between turns.

    Python's own handler would raise wherever the session happens to be, for example while it handles
    an earlier interrupt.
    """

    def __init__(self) -> None:
        self._enabled = False
        self._last = -inf

    @contextlib.contextmanager
    def enabled(self) -> Iterator[None]:
        """Let an interrupt raise `KeyboardInterrupt` inside the block."""
        try:
            self._enabled, self._last = True, -inf
            yield
        finally:
            self._enabled = False

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._enabled and now - self._last >= _DEBOUNCE_S:
            self._last = now
            raise KeyboardInterrupt


def unquote_dropped(source: str) -> str:
    """Return the path or URL that was meant by what a terminal pastes for a dropped file.

    >>> unquote_dropped("'/tmp/my cat.png'")
    '/tmp/my cat.png'
    >>> unquote_dropped("file:///tmp/my%20cat.png")
    '/tmp/my cat.png'
    """
    source = source.strip()
    if source[:1] in "'\"" or "\\" in source:
        with contextlib.suppress(ValueError):
            (source,) = shlex.split(source)
    if source.startswith("file://"):
        source = unquote(urlsplit(source).path)
    return source


def _history_file() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    file = Path(state) / "vlm-run" / "history"
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return file
