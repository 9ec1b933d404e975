"""The interactive session of `vlm-run infer`, with the commands of ms-swift's."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from vlm_run.cli.answer_log import AnswerLog
from vlm_run.cli.output import RULE
from vlm_run.cli.terminal import DROPPED_FILE, InterruptHandler, LineDropped, LineReader, unquote_dropped
from vlm_run.errors import EngineError, PluginError, RequestError, VlmRunError
from vlm_run.media.source import (
    IMAGE_SUFFIXES,
    PAGE_MARK,
    PDF_SUFFIX,
    VIDEO_SUFFIXES,
    Pages,
    page_name,
)

if TYPE_CHECKING:
    from PIL import Image

    from vlm_run.engine import Engine
    from vlm_run.media import MediaPolicy
    from vlm_run.request import Sampling
    from vlm_run.response import Usage

HELP = """\
Type a question, then the path or URL of an image or a video (empty for none).
  /image PATH_OR_URL  add an image to the next question, or pages of a PDF (doc.pdf#page=3-5);
                      dropping a file on the window does too
  /video PATH_OR_URL  add a video to the next question; the engine must take some (--max-videos)
  /explain            show what would be sent to the model
  /lora NAME          use a LoRA adapter from here on; without a name, the base model
  /save FILE          write the conversation as a line of JSON, which --val_dataset reads
  clear               start a new conversation       reset-system  set a system message
  multi-line          end a question with # alone    single-line   one line each, Alt-Enter for more
  /help  this text    Ctrl-C  stops an answer        quit          leaves"""


@dataclass(frozen=True, slots=True)
class NamedImage:
    """A loaded image and the source that the user typed, of a document with the one page."""

    source: str
    image: Image.Image


class Session:
    """A conversation of many turns, each with any number of images and videos.

    Args:
        engine: The engine that answers.
        sampling: Sampling parameters of all answers.
        system: The system message.
        log: Keeps the answers.
        policy: Which images may be loaded.
        stats: Whether token counts and speed are shown after each answer.
    """

    def __init__(
        self,
        engine: Engine,
        sampling: Sampling,
        system: str | None,
        log: AnswerLog,
        *,
        policy: MediaPolicy | None = None,
        stats: bool = False,
    ) -> None:
        self._engine = engine
        self._sampling = sampling
        self._system = system
        self._log = log
        self._policy = policy
        self._stats = stats
        self._history: list[list[str]] = []
        self._images: list[NamedImage] = []
        self._next: list[NamedImage] = []
        self._videos: list[str] = []
        self._next_videos: list[str] = []
        self._multi_line = False
        self._lora: str | None = None
        self._read = LineReader()

    def run(self) -> None:
        """Read commands and answer questions until `quit` or the end of input."""
        typer.echo(HELP)
        with InterruptHandler() as interrupts:
            while True:
                try:
                    with interrupts.enabled():
                        line = self._read_question()
                        if line is None or line.strip() in ("quit", "exit"):
                            return
                        self._execute(line)
                except LineDropped:
                    typer.echo()
                except KeyboardInterrupt:
                    typer.echo(f"\n(stopped)\n{RULE}")
                except EngineError:
                    raise
                except (VlmRunError, OSError) as error:
                    # The turn is dropped; the conversation continues without it.
                    _print_error(error)
                    typer.echo(RULE)

    def _read_question(self) -> str | None:
        line = self._read("<<<[M] " if self._multi_line else "<<< ")
        if line is None or not self._multi_line or self._is_command(line):
            return line
        lines = [line]
        while (more := self._read("")) is not None and more.strip() != "#":
            if not more.startswith(("/image ", "/video ")):
                lines.append(more)
                continue
            try:
                self._add_media(more)
            except VlmRunError as error:  # keep the lines that were typed
                _print_error(error)
        return "\n".join(lines)

    def _is_command(self, line: str) -> bool:
        words = ("quit", "exit", "clear", "reset-system", "multi-line", "single-line")
        return line.strip() in words or line.startswith(
            ("/image ", "/video ", "/save ", "/explain", "/lora", "/help")
        )

    def _execute(self, line: str) -> None:
        command, _, rest = line.strip().partition(" ")
        match command:
            case "":
                return
            case "clear" if not rest:
                self._start_over()
            case "reset-system" if not rest:
                self._system = self._read("Input a system message <<< ") or None
                self._start_over()
            case "multi-line" | "single-line" if not rest:
                self._multi_line = command == "multi-line"
            case "/help":
                typer.echo(HELP)
            case "/image" | "/video":
                self._add_media(line)
            case "/save":
                self._save(rest)
            case "/explain":
                self._explain(rest)
            case "/lora":
                self._lora = rest.strip()
            case _ if re.fullmatch(r"/[a-z]+", command) and not os.path.exists(command):
                raise VlmRunError(f"there is no command {command}", hint="/help lists them.")
            case _:
                self._ask(line)

    def _ask(self, line: str) -> None:
        question = self._extract_dropped(line)
        if not question:
            return
        has_media = self._next or self._next_videos or "<img>" in question or "</video>" in question
        if not has_media:
            media = self._read("Input a media path or URL <<< ")
            if media is None:
                return
            if media.strip():
                self._add_media(media)
        try:
            self._answer(question)
        finally:
            self._next, self._next_videos = [], []
        typer.echo(RULE)

    def _answer(self, question: str) -> None:
        request, images = self._request(question), [*self._images, *self._next]
        videos = [*self._videos, *self._next_videos]
        if self._lora is not None:
            request["lora"] = self._lora
        for delta in self._engine.stream(request, self._sampling):
            typer.echo(delta.text, nl=False)
            if delta.response is not None:
                self._history, self._images = delta.response.history, images
                self._videos, response = videos, delta.response
                self._log.write({**request, **_sources(images, videos)}, response)
        typer.echo()
        if self._stats:
            usage = response.usage
            rate = usage.completion_tokens / max(response.seconds, 1e-9)
            typer.secho(
                f"{usage.prompt_tokens} prompt tokens, {_media_tokens(usage)}; "
                f"{usage.completion_tokens} answer tokens in {response.seconds:.2f} s "
                f"({rate:.1f} tokens/s, the first after {response.first_token_seconds:.2f} s)",
                dim=True,
            )

    def _request(self, question: str) -> dict[str, Any]:
        # Each image and video has a tag, in the history too, which keeps it with its turn.
        videos = [*self._videos, *self._next_videos]
        return {
            "query": "<video>" * len(self._next_videos) + "<image>" * len(self._next) + question,
            "history": self._history,
            "images": [each.image for each in (*self._images, *self._next)],
            "system": self._system,
            **({"videos": videos} if videos else {}),
        }

    def _add_media(self, line: str) -> None:
        """Add what a line names, with or without `/image` or `/video`, to the next question."""
        command, _, rest = line.strip().partition(" ")
        source = unquote_dropped(rest if command in ("/image", "/video") else line)
        if command == "/video" or (command != "/image" and _is_video(source)):
            self._next_videos.append(self._checked_video(source))
        else:
            self._next += self._load(source)

    def _checked_video(self, source: str) -> str:
        """Print the frames of a video that the model sees and their cost in tokens; the source as it is."""
        from vlm_run.explain.video_costs import video_costs
        from vlm_run.prompts.conversation import Conversation

        if not source:
            raise VlmRunError("/video needs a video", hint="Write /video PATH_OR_URL.")
        conversation = Conversation.from_query("", videos=[source])
        try:
            (cost,) = video_costs(self._engine.adapter, conversation, self._policy)
        except RequestError as error:
            raise VlmRunError(error.cause, hint=error.hint) from None
        typer.secho(
            f"{_short(source)}: {cost.width} × {cost.height} pixels, {len(cost.times)} frames, "
            f"{cost.tokens:,} tokens",
            dim=True,
        )
        return source

    def _load(self, source: str) -> list[NamedImage]:
        """Load an image or the pages of a document, and print the size of each and its cost in tokens."""
        from vlm_run.media import MediaPolicy, load_image
        from vlm_run.prompts.conversation import Conversation
        from vlm_run.prompts.documents import with_pages

        if not source:
            raise VlmRunError("/image needs an image", hint="Write /image PATH_OR_URL.")
        policy = self._policy or MediaPolicy()
        loaded = []
        try:
            for single in with_pages(Conversation.from_query("", images=[source]), policy).images:
                name = source
                if isinstance(single, Pages):
                    name = page_name(source.partition(PAGE_MARK)[0], single.first)
                image = load_image(single, policy, page_size=self._engine.adapter.page_size)
                typer.secho(
                    f"{_short(name)}: {image.width} × {image.height} pixels{self._cost(image)}", dim=True
                )
                loaded.append(NamedImage(name, image))
        except RequestError as error:
            raise VlmRunError(error.cause, hint=error.hint) from None
        return loaded

    def _cost(self, image: Image.Image) -> str:
        try:
            adapter = self._engine.adapter
            return f", {adapter.count_image_tokens(*adapter.preprocess_image(image).size):,} tokens"
        except PluginError:  # the model type does not describe its images
            return ""

    def _extract_dropped(self, line: str) -> str:
        """Remove dropped image and video files from a line, and add all of them or none to the question."""
        dropped: list[NamedImage] = []
        videos: list[str] = []

        def take(match: re.Match[str]) -> str:
            source = unquote_dropped(match[0])
            if not os.path.isfile(source):
                return match[0]
            if _is_video(source):
                videos.append(self._checked_video(source))
            elif source.lower().endswith((*IMAGE_SUFFIXES, PDF_SUFFIX)):
                dropped.extend(self._load(source))
            else:
                return match[0]
            return ""

        question = DROPPED_FILE.sub(take, line).strip()
        self._next += dropped
        self._next_videos += videos
        return question

    def _explain(self, question: str) -> None:
        from vlm_run.cli.explain import print_explanation
        from vlm_run.explain import explain
        from vlm_run.prompts.conversation import Conversation

        request = self._request(question)
        print_explanation(explain(self._engine.adapter, Conversation.from_query(**request)))

    def _save(self, name: str) -> None:
        if not name.strip():
            raise VlmRunError("/save needs a file", hint="Write /save FILE.")
        if not self._history:
            raise VlmRunError("there is nothing to save yet")
        (*history, (query, response)) = self._history
        line = {
            "system": self._system,
            "history": history,
            "query": query,
            **_sources(self._images, self._videos),
            "response": response,
        }
        path = Path(name.strip()).expanduser()
        path.write_text(json.dumps(line, ensure_ascii=False) + "\n", encoding="utf-8")
        typer.echo(f"Saved {path}.")

    def _start_over(self) -> None:
        self._history, self._images, self._next = [], [], []
        self._videos, self._next_videos = [], []


def _print_error(error: Exception) -> None:
    typer.secho(f"error: {error}", fg="red", err=True)


def _sources(images: Sequence[NamedImage], videos: Sequence[str]) -> dict[str, list[str]]:
    """The fields of a saved request that say where its images and videos are."""
    found = {"images": [_absolute(each.source) for each in images]}
    return {**found, "videos": [_absolute(each) for each in videos]} if videos else found


def _media_tokens(usage: Usage) -> str:
    images = f"{sum(usage.image_tokens)} of them image"
    return f"{images}, {sum(usage.video_tokens)} video" if usage.video_tokens else images


def _is_video(source: str) -> bool:
    return source.strip().lower().endswith(VIDEO_SUFFIXES)


def _short(name: str) -> str:
    return name if len(name) <= 60 else f"{name[:57]}..."


def _absolute(source: str) -> str:
    path, mark, page = source.rpartition(PAGE_MARK)
    if mark and not os.path.exists(source):
        return f"{_absolute(path)}{mark}{page}"
    return str(Path(source).resolve()) if os.path.exists(source) else source
