"""The interactive session of `vlm-run infer`, as ms-swift's reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from vlm_run.errors import RequestError

if TYPE_CHECKING:
    from vlm_run.engine import Engine
    from vlm_run.request import Sampling

HELP = "Type a question, then a media path or URL (empty for none). `clear` forgets the conversation, "
HELP += "`reset-system` sets a system message, `quit` leaves."
RULE = "-" * 50


class Session:
    """A conversation of many turns, each with one image or none."""

    def __init__(self, engine: Engine, sampling: Sampling, system: str | None) -> None:
        self._engine = engine
        self._sampling = sampling
        self._system = system
        self._history: list[list[str]] = []
        self._images: list[str | None] = []

    def run(self) -> None:
        """Ask and answer until `quit` or the end of input."""
        typer.echo(HELP)
        while (question := _read("<<< ")) is not None:
            match question.strip():
                case "":
                    continue
                case "quit" | "exit":
                    return
                case "clear":
                    self._forget()
                case "reset-system":
                    self._system = _read("Input a system message <<< ") or None
                    self._forget()
                case _:
                    self._turn(question)

    def _turn(self, question: str) -> None:
        media = _read("Input a media path or URL <<< ")
        if media is None:
            return
        images = [*self._images, media.strip() or None]
        request = {"query": question, "history": self._history, "images": images, "system": self._system}
        try:
            for delta in self._engine.stream(request, self._sampling):
                typer.echo(delta.text, nl=False)
                if delta.response is not None:
                    self._history, self._images = delta.response.history, images
            typer.echo()
        except RequestError as error:
            # The turn is dropped: the conversation goes on as if it had not been.
            typer.secho(f"error: {error}", fg="red", err=True)
        except KeyboardInterrupt:
            typer.echo("\n(stopped)")
        typer.echo(RULE)

    def _forget(self) -> None:
        self._history, self._images = [], []


def _read(prompt: str) -> str | None:
    """A line, or None at the end of input."""
    try:
        return input(prompt)
    except EOFError:
        return None
