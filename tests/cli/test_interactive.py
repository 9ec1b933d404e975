"""The interactive session, typed into a real terminal, with real vLLM answering."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pexpect
import psutil
import pytest

from vlm_run.batch.row import RowFormat, read_row
from vlm_run.cli import terminal
from vlm_run_demo.showcase import draw

from ..media.pdfs import pdf_of
from ..media.videos import write_video

VLM_RUN = str(Path(sys.executable).with_name("vlm-run"))
# The line editor writes the blank behind a prompt as a move of the cursor.
PROMPT = r"\n(?:\x1b\[[\x20-\x3f]*[A-Za-z])*<<<"
MEDIA = "media path or URL <<<"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("my images")
    draw(7)[0].save(directory / "p.png")
    (directory / "doc.pdf").write_bytes(pdf_of(draw(7)[0], draw(8)[0]))
    return directory


@pytest.fixture(scope="module")
def session(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    state = tmp_path_factory.mktemp("state")
    # pexpect answers no questions about the cursor, as terminals do.
    env = {**os.environ, "XDG_STATE_HOME": str(state), "PROMPT_TOOLKIT_NO_CPR": "1", "TERM": "xterm"}
    session = pexpect.spawn(
        VLM_RUN,
        ["infer", "demo-llava", "--stats", "--allow-private-media"],
        timeout=600,
        encoding="utf-8",
        env=env,
        cwd=directory,
        dimensions=(50, 400),
    )
    session.expect("/help")
    session.expect(PROMPT)
    yield session
    session.sendline("quit")
    session.expect(pexpect.EOF)
    assert "Traceback" not in session.before
    assert "[shutdown]" not in session.before
    session.close()
    assert session.exitstatus == 0
    history = (state / "vlm-run" / "history").read_text()
    assert "How many shapes are there?" in history


@pytest.fixture(autouse=True)
def forgotten(session: Any) -> None:
    """Every test begins with an empty conversation, and with all earlier output read."""
    session.sendline("clear")
    session.sendline("/nosuch")
    session.expect("there is no command /nosuch")
    session.expect(PROMPT)


def test_an_image_is_shown_with_its_size_and_tokens(session: Any, directory: Path) -> None:
    width, height = draw(7)[0].size
    session.sendline("How many shapes are there?")
    session.expect(MEDIA)
    session.sendline("p.png")
    session.expect(rf"p\.png: {width} × {height} pixels, (\d+) tokens")
    tokens = session.match[1]
    session.expect(rf"(\d+) prompt tokens, {tokens} of them image; \d+ answer tokens in [\d.]+ s")
    session.expect("-{50}")


def test_a_model_without_videos_says_so_at_once(session: Any, directory: Path) -> None:
    write_video(directory / "clip.mp4")
    session.sendline("/video clip.mp4")
    session.expect("error: 'demo-llava' takes no videos")
    session.expect(PROMPT)
    session.sendline("What happens?")
    session.expect(MEDIA)
    session.sendline("clip.mp4")
    session.expect("error: 'demo-llava' takes no videos")
    session.expect(PROMPT)


def test_images_are_added_at_any_point_and_belong_to_their_turn(session: Any, directory: Path) -> None:
    session.sendline("Who are you?")
    session.expect(MEDIA)
    session.sendline("")
    session.expect("I am a small demo model.")
    session.expect(PROMPT)
    session.sendline("/image p.png")
    session.expect(r"p\.png: .*? tokens")
    session.sendline("How many shapes are there?")
    session.expect(r"(\d)\s*\r\n.*?of them image")
    session.expect(PROMPT)
    session.sendline("And circles?")
    session.expect(MEDIA)
    session.sendline("")
    session.expect("of them image")
    session.expect(PROMPT)
    session.sendline("/save talk.jsonl")
    session.expect("Saved talk.jsonl")
    saved = json.loads((directory / "talk.jsonl").read_text())
    assert [query for query, _ in saved["history"]] == ["Who are you?", "<image>How many shapes are there?"]
    assert saved["query"] == "And circles?"
    assert saved["images"] == [str(directory / "p.png")]
    row = read_row(0, saved, RowFormat())  # as `--val_dataset` does
    assert row.request is not None, row.error
    assert row.request.conversation.images == (str(directory / "p.png"),)


def test_pages_of_a_document_are_images(session: Any, directory: Path) -> None:
    session.sendline("/image doc.pdf#page=3")
    session.expect("error: there is no page 3: the document has 2 pages")
    session.expect(PROMPT)
    session.sendline("/image doc.pdf")
    session.expect(r"doc\.pdf#page=1: .*? tokens")
    session.expect(r"doc\.pdf#page=2: .*? tokens")
    session.sendline("Who are you?")
    session.expect(r"[1-9]\d* of them image")
    session.expect(PROMPT)
    session.sendline("/save pages.jsonl")
    session.expect("Saved")
    saved = json.loads((directory / "pages.jsonl").read_text())
    assert saved["images"] == [f"{directory}/doc.pdf#page=1", f"{directory}/doc.pdf#page=2"]


@pytest.mark.parametrize("how", ["quoted", "escaped", "url"])
def test_a_file_that_is_dropped_on_the_line_is_an_image(session: Any, directory: Path, how: str) -> None:
    path = str(directory / "p.png")
    dropped = {
        "quoted": shlex.quote(path),
        "escaped": path.replace(" ", "\\ "),
        "url": (directory / "p.png").as_uri(),
    }
    session.sendline(f"How many shapes are there? {dropped[how]}")
    session.expect(r"p\.png: \d+ × \d+ pixels")
    session.expect(r"[1-9]\d* of them image")
    session.expect(PROMPT)


def test_of_files_that_are_dropped_together_all_are_images_or_none(session: Any, directory: Path) -> None:
    (directory / "broken.png").write_bytes((directory / "p.png").read_bytes()[:200])
    both = f"{shlex.quote(str(directory / 'p.png'))} {shlex.quote(str(directory / 'broken.png'))}"
    session.sendline(f"How many shapes are there? {both}")
    session.expect(r"p\.png: \d+ × \d+ pixels")
    session.expect("error: ")
    session.expect(PROMPT)
    session.sendline("Who are you?")
    session.expect(MEDIA)  # no image waits
    session.sendline("/image p.png")  # as at any point
    session.expect(r"p\.png: .*? tokens")
    session.expect(r"[1-9]\d* of them image")
    session.expect(PROMPT)


def test_explain_shows_what_would_be_sent(session: Any) -> None:
    session.sendline("/image p.png")
    session.expect("tokens")
    session.sendline("/explain What is this?")
    session.expect("<image> = image 1")
    session.expect("What is this")
    session.expect("max_model_len")
    session.expect(PROMPT)


def test_several_lines_are_one_question(session: Any, directory: Path) -> None:
    session.sendline("multi-line")
    session.expect(r"<<<\[M\]")
    session.sendline("Who are")
    session.sendline("/image missing.png")
    session.expect("error: .*?missing.png")
    session.sendline("/image p.png")
    session.expect(r"p\.png: .*? tokens")
    session.sendline("you?")
    session.sendline("#")
    session.expect(r"[1-9]\d* of them image")
    session.expect(r"<<<\[M\]")
    session.sendline("single-line")
    session.expect(PROMPT)
    session.sendline("/save lines.jsonl")
    session.expect("Saved")
    assert json.loads((directory / "lines.jsonl").read_text())["query"] == "<image>Who are\nyou?"


def test_a_system_message_begins_a_new_conversation(session: Any) -> None:
    session.sendline("reset-system")
    session.expect("system message <<<")
    session.sendline("You are a helpful assistant.")
    session.expect(PROMPT)
    session.sendline("Who are you?")
    session.expect(MEDIA)
    session.sendline("")
    session.expect("I am a small demo model.")
    session.expect(PROMPT)
    session.sendline("reset-system")
    session.expect("system message <<<")
    session.sendline("")
    session.expect(PROMPT)


def test_a_mistake_costs_its_turn_alone(session: Any) -> None:
    session.sendline("What shape is the largest?")
    session.expect(MEDIA)
    session.sendline("missing.png")
    session.expect("error: .*?missing.png")
    session.expect(PROMPT)
    session.sendline("/sav x")
    session.expect("there is no command /sav")
    session.sendline("Who are you?")
    session.expect(MEDIA)
    session.sendline("")
    session.expect("I am a small demo model.")


def test_an_adapter_of_lora_is_chosen_from_here_on(session: Any) -> None:
    session.sendline("/lora ocr")  # the engine has none
    session.sendline("Who are you?")
    session.expect(MEDIA)
    session.sendline("")
    session.expect("there is no LoRA adapter 'ocr'")
    session.expect(PROMPT)
    session.sendline("/lora")
    session.sendline("Who are you?")
    session.expect(MEDIA)
    session.sendline("")
    session.expect("I am a small demo model.")


def test_an_interrupt_stops_the_answer_and_not_the_session(session: Any) -> None:
    session.send("half a question")
    session.sendintr()
    session.expect(PROMPT)
    session.sendline("How many shapes are there?")
    session.expect(MEDIA)
    with suspended_engine(session):  # so that there is no answer until the interrupt is heard
        session.sendline("p.png")
        session.expect(r"p\.png: .*? tokens")
        session.sendintr()
        session.expect(r"\(stopped\)")
    session.expect(PROMPT)
    session.sendline("Who are you?")
    session.expect(MEDIA)
    session.sendline("")
    session.expect("I am a small demo model.")  # vLLM's processes have not heard of it


@contextmanager
def suspended_engine(session: Any) -> Iterator[None]:
    family = psutil.Process(session.pid).children(recursive=True)
    (engine,) = [process for process in family if "EngineCore" in process.name()]
    engine.suspend()
    try:
        yield
    finally:
        engine.resume()


class Slow(BaseHTTPRequestHandler):
    """A server that takes longer to answer than a test takes."""

    def do_GET(self) -> None:
        asked.set()
        done.wait(60)

    def log_message(self, format: str, *args: Any) -> None:
        """Be quiet."""


asked, done = threading.Event(), threading.Event()


@pytest.fixture
def slow_url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/p.png"
        done.set()
        server.shutdown()


def test_an_interrupt_stops_the_loading_of_an_image(session: Any, slow_url: str) -> None:
    session.sendline(f"/image {slow_url}")
    assert asked.wait(60)
    session.sendintr()
    session.expect(r"\(stopped\)", timeout=15)  # the policy's own limit is 20 s


def test_an_interrupt_is_heard_within_a_turn_and_not_twice_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGINT)
    with terminal.InterruptHandler() as interrupts:
        signal.raise_signal(signal.SIGINT)  # between turns
        for _ in range(2):
            with interrupts.enabled():
                with pytest.raises(KeyboardInterrupt):
                    signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)
        monkeypatch.setattr(terminal, "_DEBOUNCE_S", 0.0)
        with interrupts.enabled():
            for _ in range(2):
                with pytest.raises(KeyboardInterrupt):
                    signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_interrupts_in_a_hurry_do_not_end_the_session(session: Any) -> None:
    for presses in (1, 2, 3, 10, 30):
        session.sendline("/image p.png")
        session.expect("tokens")
        session.sendline("How many shapes are there?")
        for _ in range(presses):
            session.sendintr()
            time.sleep(0.005 * presses)
        session.sendline("/nosuch")
        session.expect("there is no command /nosuch")
        session.expect(PROMPT)
        session.sendline("clear")
    session.sendline("Who are you?")
    session.expect(MEDIA)
    session.sendline("")
    session.expect("I am a small demo model.")
