"""Videos on the chat page: ways in, what they cost, their order, what is refused, history and export.

No engine runs: the server answers a question with the tokens that the videos of its request take.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from vlm_run import Conversation, Limits, Registry

from ...media.conftest import Server as FileServer
from ...media.videos import write_video
from .conftest import Chat, OpenChat, explained, exported, serious_faults
from .plain_server import PlainServer
from .test_images import give

MODEL = "demo-qwen"
QUESTION = "What moves?"
VP8, MPEG4 = "webm", "mp4"  # Chromium decodes VP8, and not the MPEG-4 part 2 that OpenCV writes into an MP4


@pytest.fixture(scope="module")
def plain() -> Iterator[PlainServer]:
    """A model that takes videos, on a server that takes two."""
    server = PlainServer(MODEL, Limits(max_videos=2))
    yield server
    server.stop()


@pytest.fixture
def chat(open_page: OpenChat, plain: PlainServer) -> Chat:
    """Its page."""
    return open_page(plain.url)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Three seconds that Chromium decodes."""
    return write_video(tmp_path / f"clip.{VP8}", frames=30)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.new("RGB", (96, 64), "red").save(path)
    return path


@pytest.fixture
def file_server() -> Iterator[FileServer]:
    """A server of files on this machine."""
    server = FileServer()
    yield server
    server.close()


def tokens_of(clip: Path, **selection: Any) -> int:
    """The tokens of a video, as `vlm-run explain` counts them."""
    part = {"type": "video_url", "video_url": {"url": str(clip)}, **selection}
    conversation = Conversation.from_messages([{"role": "user", "content": [part]}])
    return count(conversation)


def count(conversation: Conversation) -> int:
    """The tokens of all videos."""
    return explained(MODEL, conversation).video_tokens


def choose(page: Page, *files: Path) -> None:
    page.locator("#file").set_input_files(list(files))


@pytest.mark.parametrize("way", ["drop", "url"])
def test_the_cost_of_a_video_is_shown_before_it_is_sent(
    chat: Chat, plain: PlainServer, file_server: FileServer, clip: Path, way: str
) -> None:
    if way == "url":
        chat.button("Add an image or a video by its URL").click()
        url = file_server.at("/clip.webm", clip.read_bytes())
        chat.page.get_by_label("URL of an image or a video").fill(url)
        chat.page.keyboard.press("Enter")
    else:
        give(chat.page, way, clip, "video/webm")
    tokens = tokens_of(clip)
    expect(chat.attachments).to_contain_text(["96 × 64 · 3.0 s"])
    expect(chat.attachments.locator(".cost")).to_have_text(f"6 frames · {tokens} tokens")
    expect(chat.attachments.locator("img")).to_have_js_property("complete", True)
    expect(chat.page.locator("#budget")).to_contain_text(f"videos {tokens}")
    chat.ask(QUESTION, f"videos: {tokens} tokens")
    expect(chat.page.locator(".turn.user .picture")).to_have_text("3.0 s")


def test_a_video_that_the_browser_cannot_decode_is_measured_and_drawn_by_the_server(
    chat: Chat, tmp_path: Path
) -> None:
    clip = write_video(tmp_path / f"clip.{MPEG4}", frames=30)
    chat.attach(clip)
    expect(chat.attachments).to_contain_text(["96 × 64 · 3.0 s"])
    expect(chat.attachments.locator("img")).to_have_js_property("naturalWidth", 96)
    chat.ask(QUESTION, f"videos: {tokens_of(clip)} tokens")
    chat.button("Play clip.mp4").click()
    expect(chat.page.locator("#lightbox img")).to_have_js_property("naturalWidth", 96)


def test_a_video_is_played_in_the_thread(chat: Chat, clip: Path) -> None:
    chat.attach(clip)
    chat.ask(QUESTION, f"videos: {tokens_of(clip)} tokens")
    chat.button("Play clip.webm").click()
    player = chat.page.locator("#lightbox video")
    expect(player).to_have_js_property("videoWidth", 96)
    expect(player).to_have_attribute("aria-label", "clip.webm")
    player.click()
    expect(player).to_be_visible()
    chat.page.keyboard.press("Escape")
    expect(player).to_have_count(0)


def test_the_order_of_images_and_videos_is_the_prompts_order(
    chat: Chat, plain: PlainServer, clip: Path, picture: Path
) -> None:
    chat.attach(picture, clip)
    chat.ask(QUESTION, f"videos: {tokens_of(clip)} tokens")
    assert plain.prompts[-1].index("<|image_pad|>") < plain.prompts[-1].index("<|video_pad|>")
    chat.button("Edit").click()
    chat.button("Move clip.webm earlier").click()
    expect(chat.attachments.locator(".name")).to_have_text(["clip.webm", "picture.png"])
    chat.send(QUESTION)
    expect(chat.page.locator(".turn.user .versions")).to_have_text("2 / 2")
    chat.expect_last(f"videos: {tokens_of(clip)} tokens")
    assert plain.prompts[-1].index("<|video_pad|>") < plain.prompts[-1].index("<|image_pad|>")


def test_settings_choose_the_frames_of_videos(chat: Chat, plain: PlainServer, clip: Path) -> None:
    chat.button("Settings").click()
    chat.page.get_by_label("Frames of a video per second").fill("4")
    chat.page.get_by_label("Most frames of a video").fill("8")
    chat.button("Save").click()
    chat.attach(clip)
    tokens = tokens_of(clip, fps=4, max_frames=8)
    expect(chat.attachments.locator(".cost")).to_have_text(f"8 frames · {tokens} tokens")
    chat.ask(QUESTION, f"videos: {tokens} tokens")
    body = plain.asked[-1]
    assert not {"fps", "max_frames"} & body.keys()
    assert (body["messages"][0]["content"][0]["fps"], body["temperature"]) == (4, 0)


def test_what_does_not_fit_or_cannot_be_read_is_marked_before_it_is_sent(
    chat: Chat, clip: Path, tmp_path: Path
) -> None:
    whole = write_video(tmp_path / f"whole.{MPEG4}", frames=30)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(whole.read_bytes()[:2000])
    renamed = tmp_path / "notes.mp4"
    renamed.write_text("notes")
    chat.attach(clip, broken, clip)
    costs = chat.attachments.locator(".cost")
    expect(costs.nth(1)).to_contain_text("the video (MP4) is damaged")
    expect(costs.nth(2)).to_have_text("Only 2 videos per conversation")
    chat.button("Remove broken.mp4").click()
    expect(costs.nth(1)).to_have_text(f"6 frames · {tokens_of(clip)} tokens")
    choose(chat.page, renamed)
    expect(costs.nth(2)).to_contain_text("the data is not a video in a known container")
    chat.expected = "400 (Bad Request)"


IMAGES, VIDEOS = "image/*", "video/*,.mkv,.avi,.flv,.ts,.mpg,.ogv"


@pytest.mark.parametrize(
    ("model", "policy", "offered", "refusal"),
    [
        ("demo-llava", {}, IMAGES, "clip.webm is a video, and demo-llava takes no videos."),
        (
            *(MODEL, {}, IMAGES),
            "clip.webm is a video, and the server takes none until it is started with --max-videos 1.",
        ),
        (
            *("llava-next-video-7b-instruct", {"max_video_bytes": 1000}, VIDEOS),
            "clip.webm has 2 kB, and the server takes videos of 1 kB at most.",
        ),
    ],
)
def test_a_video_that_the_server_would_refuse_is_refused_before_it_is_read(
    open_page: OpenChat, clip: Path, model: str, policy: dict[str, Any], offered: str, refusal: str
) -> None:
    server = PlainServer(model, Limits(), **policy)
    chat = open_page(server.url)
    expect(chat.page.locator("#model")).to_have_text(model)
    expect(chat.page.locator("#file")).to_have_attribute("accept", offered)
    many = "videos" if offered == VIDEOS else "images"
    expect(chat.button(f"Add {many} from files")).to_be_visible()
    expect(chat.page.get_by_placeholder(f"Ask about your {many}…")).to_be_visible()
    give(chat.page, "drop", clip, "video/webm")
    expect(chat.page.locator("#notice")).to_have_text(refusal)
    expect(chat.attachments).to_have_count(0)
    chat.button("Settings").click()
    expect(chat.page.get_by_label("Frames of a video per second")).to_have_count(int(offered == VIDEOS))
    server.stop()


def test_a_video_and_its_cost_are_there_after_a_reload(chat: Chat, clip: Path) -> None:
    chat.attach(clip)
    tokens = tokens_of(clip)
    expect(chat.attachments.locator(".cost")).to_have_text(f"6 frames · {tokens} tokens")
    chat.ask(QUESTION, f"videos: {tokens} tokens")
    chat.page.reload()
    chat.page.locator("#chats .chat").click()
    expect(chat.page.locator(".turn.user img")).to_have_js_property("complete", True)
    expect(chat.page.locator("#budget")).to_contain_text(f"videos {tokens}")
    assert sum(url.endswith("/v1/adapter/media") for url in chat.requests) == 1
    chat.ask("And then?", f"videos: {tokens} tokens")


def test_a_conversation_goes_to_a_batch_and_back(
    chat: Chat, plain: PlainServer, clip: Path, picture: Path, tmp_path: Path
) -> None:
    chat.button("Settings").click()
    chat.page.get_by_label("Frames of a video per second").fill("1")
    chat.button("Save").click()
    tokens = tokens_of(clip, fps=1)
    chat.attach(picture, clip)
    chat.ask(QUESTION, f"videos: {tokens} tokens")
    chat.ask("What does <div> mean?", f"videos: {tokens} tokens")
    row, columns = exported(chat, tmp_path / "chat.jsonl")
    assert columns["history"] == [[f"<image><video>{QUESTION}", f"videos: {tokens} tokens"]]
    assert columns["videos"][0].startswith("data:video/webm;base64,")
    adapter = Registry.load(MODEL)
    assert count(row) == tokens
    assert adapter.render_prompt(row).text == plain.prompts[-1]

    chat.page.locator("#import-file").set_input_files(tmp_path / "chat.jsonl")
    expect(chat.page.locator("#notice")).to_have_text("Imported 1 chat.")
    expect(chat.page.locator(".turn.user .picture")).to_have_count(2)
    chat.ask("What does <video> mean?", f"videos: {tokens} tokens")

    # A tag as text is exported in messages.
    row, columns = exported(chat, tmp_path / "tag.jsonl")
    assert [part["type"] for part in columns["messages"][0]["content"]] == ["image_url", "video_url", "text"]
    assert adapter.render_prompt(row).text == plain.prompts[-1]
    chat.page.locator("#import-file").set_input_files(tmp_path / "tag.jsonl")
    expect(chat.page.locator("#chats li")).to_have_count(3)
    expect(chat.page.locator(".turn.user .body").last).to_have_text("What does <video> mean?")
    expect(chat.page.locator(".turn.user .picture")).to_have_count(2)


def test_columns_without_tags_are_imported_as_a_batch_reads_them(
    chat: Chat, plain: PlainServer, clip: Path, picture: Path, tmp_path: Path
) -> None:
    def uri(file: Path, kind: str) -> str:
        return f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"

    row = {
        "query": QUESTION,
        "images": [uri(picture, "image/png")],
        "videos": [uri(clip, "video/webm"), base64.b64encode(clip.read_bytes()).decode(), ["1.png", "2.png"]],
    }
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row))
    chat.page.locator("#import-file").set_input_files(file)
    expect(chat.page.locator("#notice")).to_have_text(
        "Imported 1 chat. 1 image or video could not be read and was left out."
    )
    chat.ask("And then?", f"videos: {2 * tokens_of(clip)} tokens")
    pads = [plain.prompts[-1].index(pad) for pad in ("<|video_pad|>", "<|image_pad|>")]
    assert pads == sorted(pads)


def test_a_history_of_the_first_version_is_kept(chat: Chat, picture: Path) -> None:
    """In it, questions had images only."""
    chat.page.goto(f"{chat.url}/page/icon.svg")
    chat.page.evaluate(_OLD_HISTORY, base64.b64encode(picture.read_bytes()).decode())
    chat.page.goto(f"{chat.url}/")
    chat.page.locator("#chats .chat").click()
    expect(chat.page.locator(".turn.user img")).to_have_js_property("naturalWidth", 96)
    chat.ask("And now?", "videos: 0 tokens")
    chat.expected = "404 (Not Found)"  # the icon of a page that is only a picture


_OLD_HISTORY = """async (content) => {
    await new Promise((resolve) => { indexedDB.deleteDatabase("vlm-run").onsuccess = resolve; });
    const blob = new Blob([Uint8Array.from(atob(content), (c) => c.charCodeAt(0))], { type: "image/png" });
    const question = { id: "q", parent: null, role: "user", text: "What is it?", images: ["i"], next: "a" };
    const answer = { id: "a", parent: "q", role: "assistant", text: "Red.", images: [], finish: "stop" };
    const chat = { id: "c", title: "Old", created: 1, updated: 1, system: "", settings: {}, next: "q" };
    const opening = indexedDB.open("vlm-run", 1);
    opening.onupgradeneeded = () => {
        opening.result.createObjectStore("conversations", { keyPath: "id" });
        opening.result.createObjectStore("images", { keyPath: "id" });
    };
    const database = await new Promise((resolve) => { opening.onsuccess = () => resolve(opening.result); });
    const change = database.transaction(["conversations", "images"], "readwrite");
    change.objectStore("conversations").put({ ...chat, nodes: { q: question, a: answer } });
    change.objectStore("images").put({ id: "i", name: "old.png", width: 96, height: 64, blob, thumb: blob });
    await new Promise((resolve) => { change.oncomplete = resolve; });
    database.close();
}"""


def test_axe_finds_no_serious_fault_where_videos_are_shown(
    open_page: OpenChat, plain: PlainServer, clip: Path
) -> None:
    # Axe is evaluated as text, which the page's own policy forbids.
    chat = open_page(plain.url, bypass_csp=True)
    chat.attach(clip)
    chat.ask(QUESTION, f"videos: {tokens_of(clip)} tokens")
    chat.button("Edit").click()
    assert serious_faults(chat.page) == []
    chat.button("Play clip.webm").click()
    assert serious_faults(chat.page, "#lightbox") == []


Describe = Callable[..., httpx.Response]


@pytest.fixture
def describe(plain: PlainServer) -> Describe:
    """A function that has the server look at a URL, as the page does."""

    def describe(url: str, **fields: Any) -> httpx.Response:
        return httpx.post(f"{plain.url}/v1/adapter/media", json={"url": url, **fields}, timeout=60)

    return describe


def test_the_server_measures_a_video_and_hands_on_nothing_else(
    describe: Describe, file_server: FileServer, clip: Path
) -> None:
    found = describe(file_server.at("/clip", clip.read_bytes()), num_frames=4, fps=1).json()
    assert found.pop("thumbnail").startswith("data:image/jpeg;base64,")
    assert found == {
        **{"kind": "video", "width": 96, "height": 64, "seconds": 3.0},
        **{"frames": 4, "resized": [96, 64], "tokens": tokens_of(clip, fps=1)},
    }


def test_the_server_looks_at_nothing_that_a_question_could_not_name(
    describe: Describe, file_server: FileServer, clip: Path
) -> None:
    secret = describe(file_server.at("/secret", b"password = 1234"))
    assert secret.status_code == 400
    assert "1234" not in secret.text
    playlist = describe(file_server.at("/list.m3u8", b"#EXTM3U\nfile:///etc/passwd\n"))
    assert playlist.status_code == 400
    for url in ("file:///etc/passwd", "/etc/passwd", str(clip), "data:,", clip.read_bytes().hex()):
        assert describe(url).status_code in (400, 422), url
    for wrong in ({"fps": 0}, {"max_frames": 0}, {"max_pixels": "x"}):
        assert describe("data:video/webm;base64,AAAA", **wrong).status_code in (400, 422), wrong


def test_private_addresses_and_limits_hold_for_videos(clip: Path, file_server: FileServer) -> None:
    url = file_server.at("/clip", clip.read_bytes())
    for policy, cause in (
        ({"allow_private_addresses": False}, "private"),
        ({"max_video_bytes": 1000}, "larger than"),
        ({"max_video_seconds": 1.0}, "lasts 3 s"),
        ({"max_video_pixels": 1000}, "more than the 1,000 pixels allowed in a video"),
    ):
        server = PlainServer(MODEL, Limits(max_videos=1), **policy)
        answer = httpx.post(f"{server.url}/v1/adapter/media", json={"url": url}, timeout=60)
        server.stop()
        assert answer.status_code == 400
        assert cause in answer.json()["error"]["message"]
