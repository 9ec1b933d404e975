"""Images on the chat page: four ways in, what they cost, their order, and what does not fit."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from ..conftest import ImageServer, Server, draw, png
from .conftest import Chat

COUNT = "How many red circles are there?"
DrawRed = Callable[[int], Path]

_GIVE = """([way, base64, name, type]) => {
    const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
    const data = new DataTransfer();
    data.items.add(new File([bytes], name, { type }));
    const event = way === "paste"
        ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true })
        : new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
    document.querySelector("#question").dispatchEvent(event);
}"""


def give(page: Page, way: str, file: Path, kind: str = "image/png") -> None:
    """Paste a file, or drop it on the page."""
    page.evaluate(_GIVE, [way, base64.b64encode(file.read_bytes()).decode(), file.name, kind])


@pytest.mark.parametrize("way", ["choose", "paste", "drop", "url"])
def test_an_image_is_given_in_four_ways_and_its_cost_is_shown_before_it_is_sent(
    chat: Chat, red: DrawRed, image_server: ImageServer, way: str
) -> None:
    if way == "choose":
        chat.attach(red(3))
    elif way == "url":
        chat.button("Add an image by its URL").click()
        chat.page.get_by_label("URL of an image").fill(image_server.at("/red3.png", png(draw(3))))
        chat.page.keyboard.press("Enter")
    else:
        give(chat.page, way, red(3))
    expect(chat.attachments).to_contain_text(["160 × 128"])
    expect(chat.attachments.locator(".cost")).to_have_text("268 tokens")
    expect(chat.attachments.locator("img")).to_have_js_property("complete", True)
    chat.ask(COUNT, "3")
    expect(chat.page.locator(".turn.user img")).to_have_count(1)


def test_the_order_of_two_images_is_the_prompts_order(chat: Chat, red: DrawRed) -> None:
    chat.attach(red(3), red(1))
    expect(chat.page.locator("#budget")).to_have_text("≈ 545 of 2,048 tokens · images 536")
    chat.ask("How many red circles are there in the first picture?", "3")
    chat.ask("How many red circles are there in the second picture?", "1")

    chat.button("New chat").first.click()
    chat.attach(red(3), red(1))
    chat.button("Move red1.png earlier").click()
    expect(chat.attachments.locator(".name")).to_have_text(["red1.png", "red3.png"])
    chat.ask("How many red circles are there in the first picture?", "1")


def test_an_image_can_be_removed_before_it_is_sent(chat: Chat, red: DrawRed) -> None:
    chat.attach(red(1), red(3))
    chat.button("Remove red1.png").click()
    expect(chat.attachments).to_have_count(1)
    chat.ask(COUNT, "3")


def test_one_image_too_many_is_marked_before_it_is_sent(chat: Chat, red: DrawRed) -> None:
    chat.attach(red(1), red(2), red(3))
    costs = chat.attachments.locator(".cost")
    expect(costs).to_have_text(["268 tokens", "268 tokens", "Only 2 images per conversation"])


def test_an_oversized_image_is_refused_with_its_cause_and_the_question_is_kept(
    chat: Chat, image_file: Callable[[int, int], Path]
) -> None:
    chat.attach(image_file(12_000, 10_000))
    expect(chat.attachments.locator(".cost")).to_contain_text("12000 × 10000 pixels")
    chat.send(COUNT)
    alert = chat.answers.last.get_by_role("alert")
    expect(alert).to_contain_text("message 1, image 1")
    expect(alert).to_contain_text("100,000,000")
    expect(chat.page.locator(".turn.user .body")).to_have_text(COUNT)
    chat.expected = "400 (Bad Request)"


def test_a_large_image_is_shrunk_only_when_the_user_says_so(
    chat: Chat, image_file: Callable[[int, int], Path]
) -> None:
    chat.attach(image_file(3000, 1500))
    expect(chat.attachments).to_contain_text("3,000 × 1,500")
    chat.button("Shrink to 2,048 px").click()
    expect(chat.attachments).to_contain_text("2,048 × 1,024")
    expect(chat.button("Shrink to 2,048 px")).to_have_count(0)
    expect(chat.attachments.locator(".cost")).to_have_text("200 tokens")


def test_a_file_that_is_no_image_is_told(chat: Chat, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("notes")
    chat.page.locator("#file").set_input_files(file)
    expect(chat.page.locator("#notice")).to_have_text("notes.txt is not an image.")


def test_the_server_measures_a_remote_image_and_hands_on_nothing_else(
    server: Server, image_server: ImageServer
) -> None:
    answer = server.http.post("/v1/adapter/media", json={"url": image_server.at("/p.png", png(draw(1)))})
    assert answer.status_code == 200
    assert answer.json().keys() == {"kind", "width", "height", "thumbnail"}
    refused = server.http.post(
        "/v1/adapter/media", json={"url": image_server.at("/secret", b"password = 1234")}
    )
    assert refused.status_code == 400
    assert "not an image" in refused.json()["error"]["message"]
    assert "1234" not in refused.text
    local = server.http.post("/v1/adapter/media", json={"url": "file:///etc/passwd"})
    assert local.status_code in (400, 422)
