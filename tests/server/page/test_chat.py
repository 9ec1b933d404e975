"""Conversations on the chat page: streamed, stopped, edited, kept, exported, and what goes wrong in them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from vlm_run.server.page import DIRECTORY

from ..conftest import MODEL, Server
from .conftest import KEY, Chat, Front, OpenChat, explained, exported, serious_faults

COUNT = "How many red circles are there?"
HOSTILE = """Look: <script>document.title = "taken"</script><img src=x onerror="document.title='taken'">
<b style="color:red">bold</b> [link](javascript:document.title='taken') ![track](https://evil.example/t.png)

```python
print("<script>")
```

$$\\sqrt{\\frac{a}{b}}$$
"""
DrawRed = Callable[[int], Path]


def settings(chat: Chat, **values: str) -> None:
    """Change settings in their dialog, by label."""
    chat.button("Settings").click()
    for label, value in values.items():
        chat.page.get_by_label(label.replace("_", " ")).fill(value)
    chat.button("Save").click()


def test_an_answer_can_be_edited_regenerated_and_found_after_a_reload(chat: Chat, red: DrawRed) -> None:
    chat.attach(red(3))
    chat.ask(COUNT, "3")
    expect(chat.answers.last.locator(".stats")).to_have_text(
        re.compile(r"28\d prompt tokens · \d answer tokens? · first after \d+\.\d\d s")
    )
    chat.button("Regenerate").click()
    expect(chat.answers.locator(".versions")).to_have_text("2 / 2")
    chat.expect_last("3")

    chat.button("Edit").click()
    expect(chat.attachments).to_have_count(1)
    chat.send("How many blue squares are there?")
    expect(chat.page.locator(".turn.user .versions")).to_have_text("2 / 2")
    chat.expect_last("1")

    chat.page.reload()
    chat.page.locator("#chats .chat").click()
    expect(chat.page.locator(".turn.user .body")).to_have_text("How many blue squares are there?")
    expect(chat.page.locator(".turn.user img")).to_have_js_property("complete", True)
    chat.page.locator(".turn.user").get_by_role("button", name="Previous version").click()
    expect(chat.page.locator(".turn.user .body")).to_have_text(COUNT)
    chat.expect_last("3")

    chat.page.locator(".turn.user").get_by_role("button", name="Delete this turn").click()
    expect(chat.page.locator(".turn.user .body")).to_have_text("How many blue squares are there?")
    chat.button("Delete “").click()
    chat.page.get_by_role("dialog").get_by_role("button", name="Delete", exact=True).click()
    expect(chat.page.locator("#chats li")).to_have_count(0)


def test_escape_stops_an_answer_and_keeps_its_text(front: Front, open_chat: OpenChat) -> None:
    front.script, front.pause = "word " * 1000, 0.02
    chat = open_chat(front.url)
    chat.send("Go on.")
    expect(chat.answers.last.locator("> .body")).to_contain_text("word")
    chat.page.keyboard.press("Escape")
    expect(chat.answers.last).to_have_attribute("aria-busy", "false")
    expect(chat.answers.last.locator(".stats")).to_contain_text("Stopped")
    expect(chat.button("Send")).to_be_visible()


def test_a_conversation_goes_to_a_batch_and_back(chat: Chat, red: DrawRed, tmp_path: Path) -> None:
    chat.attach(red(2))
    chat.ask(COUNT, "2")
    chat.ask("How many blue squares are there?", "2")
    file = tmp_path / "chat.jsonl"
    conversation, row = exported(chat, file)
    assert row["query"] == "How many blue squares are there?"
    assert row["history"] == [[f"<image>{COUNT}", "2"]]
    assert row["images"][0].startswith("data:image/png;base64,")
    assert row["response"] == "2"
    prompt_tokens = explained(MODEL, conversation).total_tokens
    expect(chat.answers.last.locator(".stats")).to_contain_text(f"{prompt_tokens} prompt tokens")

    chat.page.locator("#import-file").set_input_files(file)
    expect(chat.page.locator("#notice")).to_have_text("Imported 1 chat.")
    expect(chat.answers).to_have_count(2)
    expect(chat.page.locator("#chats li")).to_have_count(2)
    chat.ask("How many red circles are there?", "2")


def test_a_bad_line_of_an_import_is_told_with_its_number(chat: Chat, tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text('{"query": "Who are you?"}\n{"query": \n')
    chat.page.locator("#import-file").set_input_files(file)
    expect(chat.page.locator("#notice")).to_have_text("bad.jsonl, line 2: not JSON")
    expect(chat.page.locator("#chats li")).to_have_count(0)


def test_a_server_that_ends_and_comes_back_costs_no_word(front: Front, open_chat: OpenChat) -> None:
    chat = open_chat(front.url)
    expect(chat.page.locator("#models")).to_be_visible()
    front.stop()
    chat.send("Who are you?")
    expect(chat.answers.last.get_by_role("alert")).to_contain_text("connection to the server was lost")
    expect(chat.page.locator("#notice")).to_contain_text("Trying again")
    expect(chat.page.locator(".turn.user .body")).to_have_text("Who are you?")
    front.start()
    expect(chat.page.locator("#notice")).to_be_empty()
    chat.button("Retry").click()
    chat.expect_last("I am a small demo model.")
    chat.expected = "ERR_CONNECTION"


def test_the_page_opens_without_a_key_and_asks_for_it(front_with_key: Front, open_chat: OpenChat) -> None:
    chat = open_chat(front_with_key.url)
    chat.page.get_by_role("textbox", name="API key").fill("wrong")
    chat.page.keyboard.press("Enter")
    expect(chat.page.get_by_text("The server refused this key.")).to_be_visible()
    chat.page.get_by_role("textbox", name="API key").fill(KEY)
    chat.page.keyboard.press("Enter")
    expect(chat.page.locator("#models")).to_be_visible()
    assert chat.page.evaluate("Object.keys(localStorage).concat(Object.values(sessionStorage))") == [KEY]
    chat.expected = "401 (Unauthorized)"


def test_what_a_model_writes_never_runs(front: Front, open_chat: OpenChat) -> None:
    front.script = HOSTILE
    chat = open_chat(front.url)
    chat.send("Write HTML.")
    last = chat.answers.last
    expect(last).to_have_attribute("aria-busy", "false")
    expect(last.locator("> .body")).to_contain_text("<script>document.title")
    expect(last.locator(".katex")).to_have_count(1)
    expect(last.locator(".hljs-built_in")).to_have_text("print")
    expect(last.locator("script, img, b, [style*=red]")).to_have_count(0)
    assert chat.page.title() == "vlm-run"
    links = last.locator("a[href]").evaluate_all("links => links.map(link => link.protocol)")
    assert links == ["https:"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1100])
def test_axe_finds_no_serious_fault_in_any_width_or_scheme(
    open_chat: OpenChat, red: DrawRed, scheme: str, width: int
) -> None:
    # Axe is evaluated as text, which the page's own policy forbids.
    chat = open_chat(color_scheme=scheme, bypass_csp=True)
    chat.page.set_viewport_size({"width": width, "height": 640})
    chat.attach(red(1))
    chat.ask(COUNT, "1")
    assert chat.page.evaluate("document.documentElement.scrollWidth") <= width
    background = chat.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(23, 24, 28)"}[scheme]
    for opener in (None, "Settings"):
        if opener:
            chat.button(opener).click()
        assert serious_faults(chat.page) == []


def test_the_keyboard_alone_suffices(chat: Chat, red: DrawRed) -> None:
    expect(chat.page.locator("#question")).to_be_focused()
    chat.page.keyboard.type("Who are you?")
    chat.page.keyboard.press("Enter")
    chat.expect_last("I am a small demo model.")
    chat.page.keyboard.press("Shift+Tab")
    assert chat.page.evaluate("document.activeElement.closest('.turn') !== null")


def test_the_page_is_served_under_a_strict_policy(server: Server, opened_urls: Path) -> None:
    for path in ("/", "/page/main.js", "/page/vendor/katex/katex.min.css"):
        answer = server.http.get(path)
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
    assert server.http.get("/page/../page.py").status_code == 404
    until = time.monotonic() + 60
    while not (opened_urls.is_file() and opened_urls.read_text()) and time.monotonic() < until:
        time.sleep(0.05)
    assert opened_urls.read_text() == f"{server.url}/\n"
    assert "The chat page is at" in server.log


def test_the_page_is_small() -> None:
    files = [path for path in DIRECTORY.iterdir() if path.suffix in (".js", ".css", ".html")]
    lines = {path.name: len(path.read_text().splitlines()) for path in files}
    assert max(lines.values()) < 300
    assert sum(path.stat().st_size for path in files) < 100_000
    scripts = [
        line.strip() for path in files if path.suffix == ".js" for line in path.read_text().splitlines()
    ]
    assert sum(bool(line) and not line.startswith(("//", "/*", "*")) for line in scripts) <= 1650
