"""The interactive session of `vlm-run infer`, as ms-swift's reads."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote, urlsplit

import typer

from vlm_run.cli.output import RULE
from vlm_run.errors import EngineError, PluginError, RequestError, VlmRunError

if TYPE_CHECKING:
    from types import FrameType

    from PIL import Image

    from vlm_run.engine import Engine
    from vlm_run.media import MediaPolicy
    from vlm_run.request import Sampling

HELP = """\
Type a question, then a media path or URL (empty for none).
  /image PATH_OR_URL  add a picture to the next question; a file dropped on the window does too
  /explain            show what the model would be sent
  /save FILE          write the conversation as a line of JSON, which --val_dataset reads
  clear               forget the conversation        reset-system  set a system message
  multi-line          lines up to one with # alone   single-line   a line each, Alt-Enter for more
  /help  this text    Ctrl-C  stops an answer        quit          leaves"""
# As terminals paste a file that is dropped on them: quoted, with backslashes, or as a URL.
_DROPPED = re.compile(r"""'(?:/|file://)[^']+'|"(?:/|file://)[^"]+"|(?:/|file://)(?:\\.|[^\s'"\\])+""")
# For so long after an interrupt another one in the same turn means the same.
_HURRY_S = 1.0
_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that was loaded once, and what it was called."""

    source: str
    image: Image.Image


class Session:
    """A conversation of many turns, each with any number of images.

    Args:
        engine: That answers.
        sampling: For all answers.
        system: The system message.
        policy: What images may be fetched.
        stats: Whether tokens and speed are shown after each answer.
    """

    def __init__(
        self,
        engine: Engine,
        sampling: Sampling,
        system: str | None,
        *,
        policy: MediaPolicy | None = None,
        stats: bool = False,
    ) -> None:
        self._engine = engine
        self._sampling = sampling
        self._system = system
        self._policy = policy
        self._stats = stats
        self._history: list[list[str]] = []
        self._pictures: list[Picture] = []
        self._next: list[Picture] = []
        self._multi_line = False
        self._read = _reader()

    def run(self) -> None:
        """Ask and answer until `quit` or the end of input."""
        typer.echo(HELP)
        with _interrupts() as interrupts:
            while True:
                try:
                    with interrupts.heard():
                        line = self._question()
                        if line is None or line.strip() in ("quit", "exit"):
                            return
                        self._obey(line)
                except KeyboardInterrupt:
                    typer.echo()  # the line is dropped
                except EngineError:
                    raise
                except (VlmRunError, OSError) as error:
                    # The turn is dropped: the conversation goes on as if it had not been.
                    _complain(error)
                    typer.echo(RULE)

    def _question(self) -> str | None:
        line = self._read("<<<[M] " if self._multi_line else "<<< ")
        if line is None or not self._multi_line or self._is_command(line):
            return line
        lines = [line]
        while (more := self._read("")) is not None and more.strip() != "#":
            if not more.startswith("/image "):
                lines.append(more)
                continue
            try:
                self._add(more)
            except VlmRunError as error:  # what has been typed is too much to lose
                _complain(error)
        return "\n".join(lines)

    def _is_command(self, line: str) -> bool:
        words = ("quit", "exit", "clear", "reset-system", "multi-line", "single-line")
        return line.strip() in words or line.startswith(("/image ", "/save ", "/explain", "/help"))

    def _obey(self, line: str) -> None:
        command, _, rest = line.strip().partition(" ")
        match command:
            case "":
                return
            case "clear" if not rest:
                self._forget()
            case "reset-system" if not rest:
                self._system = self._read("Input a system message <<< ") or None
                self._forget()
            case "multi-line" | "single-line" if not rest:
                self._multi_line = command == "multi-line"
            case "/help":
                typer.echo(HELP)
            case "/image":
                self._add(line)
            case "/save":
                self._save(rest)
            case "/explain":
                self._explain(rest)
            case _ if re.fullmatch(r"/[a-z]+", command) and not Path(command).exists():
                raise VlmRunError(f"there is no command {command}", hint="/help lists them.")
            case _:
                self._ask(line)

    def _ask(self, line: str) -> None:
        question = self._take_dropped(line)
        if not question:
            return
        if not self._next and "<img>" not in question:
            media = self._read("Input a media path or URL <<< ")
            if media is None:
                return
            if media.strip():
                self._add(media)
        try:
            self._answer(question)
        finally:
            self._next = []
        typer.echo(RULE)

    def _answer(self, question: str) -> None:
        pictures = [*self._pictures, *self._next]
        try:
            for delta in self._engine.stream(self._request(question), self._sampling):
                typer.echo(delta.text, nl=False)
                if delta.response is not None:
                    self._history, self._pictures = delta.response.history, pictures
                    response = delta.response
            typer.echo()
        except KeyboardInterrupt:
            typer.echo("\n(stopped)")
            return
        if self._stats:
            usage = response.usage
            rate = usage.completion_tokens / max(response.seconds, 1e-9)
            typer.secho(
                f"{usage.prompt_tokens} prompt tokens, {sum(usage.image_tokens)} of them image; "
                f"{usage.completion_tokens} answer tokens in {response.seconds:.2f} s "
                f"({rate:.1f} tokens/s, the first after {response.first_token_seconds:.2f} s)",
                dim=True,
            )

    def _request(self, question: str) -> dict[str, Any]:
        # One tag a picture, in the history too, says to which turn each belongs.
        return {
            "query": "<image>" * len(self._next) + question,
            "history": self._history,
            "images": [picture.image for picture in (*self._pictures, *self._next)],
            "system": self._system,
        }

    def _add(self, line: str) -> None:
        """Load the picture that a line names, with or without `/image`, for the next question."""
        command, _, rest = line.strip().partition(" ")
        self._next.append(self._loaded(rest if command == "/image" else line))

    def _loaded(self, source: str) -> Picture:
        """The picture of a source; says what it costs."""
        from vlm_run.media import load_image

        source = _clean(source)
        if not source:
            raise VlmRunError("/image names no picture", hint="Write /image PATH_OR_URL.")
        try:
            image = load_image(source, self._policy)
        except RequestError as error:
            raise VlmRunError(error.cause, hint=error.hint) from None
        shown = source if len(source) <= 60 else f"{source[:57]}..."
        typer.secho(f"{shown}: {image.width} × {image.height} pixels{self._cost(image)}", dim=True)
        return Picture(source, image)

    def _cost(self, image: Image.Image) -> str:
        try:
            adapter = self._engine.adapter
            return f", {adapter.count_image_tokens(*adapter.preprocess_image(image).size):,} tokens"
        except PluginError:  # the answer will not say either
            return ""

    def _take_dropped(self, line: str) -> str:
        """The line without the picture files that were dropped on it, which are added, all or none."""
        dropped: list[Picture] = []

        def take(match: re.Match[str]) -> str:
            source = _clean(match[0])
            if not source.lower().endswith(_PICTURES) or not Path(source).is_file():
                return match[0]
            dropped.append(self._loaded(source))
            return ""

        question = _DROPPED.sub(take, line).strip()
        self._next += dropped
        return question

    def _explain(self, question: str) -> None:
        from vlm_run.cli.explain import print_explanation
        from vlm_run.explain import explain
        from vlm_run.prompts.conversation import Conversation

        request = self._request(question)
        print_explanation(explain(self._engine.adapter, Conversation.from_query(**request)))

    def _save(self, name: str) -> None:
        if not name.strip():
            raise VlmRunError("/save names no file", hint="Write /save FILE.")
        if not self._history:
            raise VlmRunError("there is nothing to save yet")
        (*history, (query, response)) = self._history
        line = {
            "system": self._system,
            "history": history,
            "query": query,
            "images": [_absolute(picture.source) for picture in self._pictures],
            "response": response,
        }
        path = Path(name.strip()).expanduser()
        path.write_text(json.dumps(line, ensure_ascii=False) + "\n", encoding="utf-8")
        typer.echo(f"Saved {path}.")

    def _forget(self) -> None:
        self._history, self._pictures, self._next = [], [], []


class _interrupts:
    """Ctrl-C ends what a turn is doing; between turns, and again and again in a hurry, it does nothing.

    Python's own handler would raise wherever the session happens to be, in the midst of dealing
    with the interrupt before too.
    """

    def __init__(self) -> None:
        self._hears = False
        self._last = -inf

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """While inside, an interrupt raises `KeyboardInterrupt`."""
        try:
            self._hears, self._last = True, -inf
            yield
        finally:
            self._hears = False

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._hears and now - self._last >= _HURRY_S:
            self._last = now
            raise KeyboardInterrupt


def _complain(error: Exception) -> None:
    typer.secho(f"error: {error}", fg="red", err=True)


def _clean(source: str) -> str:
    """A source as it was meant, from what a terminal pastes for a dropped file."""
    source = source.strip()
    if source[:1] in "'\"" or "\\" in source:
        with contextlib.suppress(ValueError):
            (source,) = shlex.split(source)
    if source.startswith("file://"):
        source = unquote(urlsplit(source).path)
    return source


def _absolute(source: str) -> str:
    return str(Path(source).resolve()) if Path(source[:255]).exists() else source


class _reader:
    """Reads lines: with a history and keys to edit on a terminal, plainly elsewhere."""

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
        """A line, or None at the end of input."""
        try:
            return self._edited(prompt) if self._session else input(prompt)
        except EOFError:
            return None

    def _edited(self, prompt: str) -> str:
        # While a line is edited Ctrl-C is a key like others. The signal would meet the editor half
        # built, before it has taken the terminal over.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            return str(self._session.prompt(prompt, handle_sigint=False))
        finally:
            signal.signal(signal.SIGINT, before)


def _history_file() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    file = Path(state) / "vlm-run" / "history"
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return file
