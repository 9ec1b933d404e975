"""A real browser on the chat page of the real server, and a front between the two where a test needs one."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from vlm_run import Conversation, Registry
from vlm_run.batch.row import RowFormat, read_row
from vlm_run.batch.sources import open_dataset
from vlm_run.explain import Explanation, explain
from vlm_run.server.middleware import Keys
from vlm_run.server.page import page_paths

from ..conftest import Server, draw
from .listener import Listener

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
KEY = "open-sesame"
expect.set_options(timeout=60_000)  # a busy machine is no failure
_HOP = {"transfer-encoding", "content-length", "connection", "date", "server"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium. It ends with the module: until then Playwright runs an event loop in this thread."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed, and the chat page is not tested: apt-get install chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield chromium
        chromium.close()


def new_tab(browser: Browser, **options: Any) -> Page:
    """A page that shares nothing with others."""
    context = browser.new_context(viewport={"width": 1100, "height": 760}, **options)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    context.set_default_timeout(60_000)
    return context.new_page()


@pytest.fixture(scope="module")
def tab(browser: Browser) -> Page:
    """A page that one test after the other uses, since a new one takes Chromium 1 s of CPU time."""
    return new_tab(browser)


class Chat:
    """The chat page in a browser without a history, as a user sees it."""

    def __init__(self, page: Page, url: str) -> None:
        self.url = url
        self.page = page
        self.console: list[str] = []
        self.expected = ""  # what lines of the console may say besides
        self.requests: list[str] = []
        self._listeners: dict[Any, Callable[[Any], None]] = {
            "console": lambda message: self.console.append(f"{message.type}: {message.text}"),
            "pageerror": lambda error: self.console.append(f"error: {error}"),
            "request": lambda request: self.requests.append(request.url),
        }
        for event, listener in self._listeners.items():
            self.page.on(event, listener)
        self.page.goto(f"{url}/")

    def leave(self) -> None:
        """Go to an empty page, and forget what the browser keeps for the server."""
        for event, listener in self._listeners.items():
            self.page.remove_listener(event, listener)
        # With the origin and the policy of the page, or Chromium would start a process for it.
        url, policy = f"{self.url}/empty", {"Cross-Origin-Opener-Policy": "same-origin"}
        empty = '<link rel="icon" href="data:,">'
        self.page.route(
            url, lambda route: route.fulfill(body=empty, content_type="text/html", headers=policy)
        )
        self.page.goto(url)
        self.page.unroute(url)
        self.page.evaluate("sessionStorage.clear()")
        session = self.page.context.new_cdp_session(self.page)
        session.send("Storage.clearDataForOrigin", {"origin": self.url, "storageTypes": "all"})
        session.detach()

    @property
    def answers(self) -> Locator:
        """The answers that are shown."""
        return self.page.locator(".turn.assistant")

    @property
    def attachments(self) -> Locator:
        """The images and videos of the question that is being written."""
        return self.page.locator("#attachments li")

    def button(self, name: str, **options: Any) -> Locator:
        """A button by its label."""
        return self.page.get_by_role("button", name=name, **options)

    def attach(self, *files: Path) -> None:
        """Choose files, and wait until each has its cost."""
        before = self.attachments.count()
        self.page.locator("#file").set_input_files(list(files))
        expect(self.attachments).to_have_count(before + len(files))

    def send(self, question: str) -> None:
        """Ask."""
        self.page.get_by_role("textbox", name="Ask about").fill(question)
        self.page.keyboard.press("Enter")

    def ask(self, question: str, answer: str | re.Pattern[str]) -> None:
        """Ask, and wait for this to be the whole answer."""
        count = self.answers.count()
        self.send(question)
        expect(self.answers).to_have_count(count + 1)
        self.expect_last(answer)

    def expect_last(self, answer: str | re.Pattern[str]) -> None:
        """Wait until the last answer that is shown is this one, and complete."""
        last = self.answers.last
        expect(last).to_have_attribute("aria-busy", "false")
        expect(last.locator("> .body")).to_have_text(answer)

    def faults(self) -> list[str]:
        """Errors in the console, and requests to any other server."""
        foreign = [url for url in self.requests if not _is_own(url, self.url)]
        errors = [line for line in self.console if line.startswith("error:")]
        return [line for line in errors if not (self.expected and self.expected in line)] + foreign


def _is_own(url: str, origin: str) -> bool:
    return url.startswith((f"{origin}/", "data:", f"blob:{origin}/"))


OpenChat = Callable[..., Chat]


@pytest.fixture
def open_page(browser: Browser, tab: Page) -> Iterator[OpenChat]:
    """A function that opens the page at a URL, with options in a new tab of a browser that has them.

    Afterwards no console has an error, and no other server was asked.
    """
    chats: list[Chat] = []

    def open_page(url: str, **options: Any) -> Chat:
        chats.append(Chat(new_tab(browser, **options) if options else tab, url))
        return chats[-1]

    yield open_page
    faults = [fault for chat in chats for fault in chat.faults()]
    for chat in chats:
        if chat.page is tab:
            chat.leave()
        else:
            chat.page.context.close()
    assert faults == []


@pytest.fixture
def open_chat(open_page: OpenChat, server: Server) -> OpenChat:
    """A function that opens the page of the server that all tests share, or of another URL."""

    def open_chat(url: str = server.url, **options: Any) -> Chat:
        return open_page(url, **options)

    return open_chat


@pytest.fixture
def chat(open_chat: OpenChat) -> Chat:
    """The page of that server."""
    return open_chat()


@pytest.fixture
def red(tmp_path: Path) -> Callable[[int], Path]:
    """A function that draws an image with so many red circles, as a file."""

    def red(count: int) -> Path:
        file = tmp_path / f"red{count}.png"
        draw(count).save(file)
        return file

    return red


@pytest.fixture
def image_file(tmp_path: Path) -> Callable[[int, int], Path]:
    """A function that makes a file of a black image of a size."""

    def image_file(width: int, height: int) -> Path:
        file = tmp_path / f"{width}x{height}.png"
        Image.new("1", (width, height)).save(file)
        return file

    return image_file


class Front(Listener):
    """A server of the test's in front of the real one, which passes requests on to it.

    Attributes:
        script: Text that is streamed as the answer in the model's place, word by word.
        pause: Seconds between its words.
    """

    def __init__(self, upstream: str, *keys: str) -> None:
        self._upstream = upstream
        self.script: str | None = None
        self.pause = 0.0
        methods = ["GET", "POST"]
        app: Any = Starlette(routes=[Route("/{path:path}", self._answer, methods=methods)])
        super().__init__(Keys(app, keys, page_paths()) if keys else app)

    async def _answer(self, request: Request) -> Response:
        if self.script is not None and request.url.path == "/v1/chat/completions":
            return StreamingResponse(self._scripted(self.script), media_type="text/event-stream")
        client = httpx.AsyncClient(base_url=self._upstream, timeout=120)
        path = str(request.url.replace(scheme="", netloc=""))
        headers = {"content-type": request.headers.get("content-type", "")}
        passed = client.build_request(request.method, path, content=await request.body(), headers=headers)
        answer = await client.send(passed, stream=True)
        kept = {name: value for name, value in answer.headers.items() if name not in _HOP}
        return StreamingResponse(
            answer.aiter_raw(), answer.status_code, kept, background=BackgroundTask(client.aclose)
        )

    async def _scripted(self, text: str) -> AsyncIterator[str]:
        words = re.findall(r"\S+\s*|\s+", text)
        for number, word in enumerate(words, 1):
            usage = {"prompt_tokens": 9, "completion_tokens": number, "total_tokens": 9 + number}
            choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
            yield f"data: {json.dumps({'choices': [choice], 'usage': usage})}\n\n"
            await asyncio.sleep(self.pause)
        choice = {"index": 0, "delta": {}, "finish_reason": "stop"}
        yield f"data: {json.dumps({'choices': [choice], 'usage': usage})}\n\ndata: [DONE]\n\n"


@pytest.fixture
def front(server: Server) -> Iterator[Front]:
    """A front that the test may stop, or have answer in the model's place."""
    front = Front(server.url)
    yield front
    front.stop()


@pytest.fixture
def front_with_key(server: Server) -> Iterator[Front]:
    """A front that asks for `KEY`, as the server does with --api-key."""
    front = Front(server.url, KEY)
    yield front
    front.stop()


def exported(chat: Chat, file: Path) -> tuple[Conversation, dict[str, Any]]:
    """Export the chat; the request that a batch reads, and its columns."""
    with chat.page.expect_download() as download:
        chat.button("Export this chat as JSONL").click()
    download.value.save_as(file)
    ((number, columns),) = open_dataset(str(file)).rows()
    row = read_row(number, columns, RowFormat())
    assert row.request is not None, row.error
    return row.request.conversation, json.loads(file.read_text())


def explained(model: str, conversation: Conversation) -> Explanation:
    """What `vlm-run explain` tells of a request."""
    # In a thread, since Playwright's event loop runs in this one.
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(explain, Registry.load(model), conversation).result()


def serious_faults(page: Page, where: str | None = None) -> list[Any]:
    """The elements in which axe finds a serious fault, on the page or in a part of it."""
    found = Axe().run(page, context=where).response["violations"]
    return [each["nodes"] for each in found if each["impact"] in ("serious", "critical")]
