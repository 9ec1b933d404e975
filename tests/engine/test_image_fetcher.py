"""Remote images are fetched at once and ahead of rendering; everything else stays as it is."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from vlm_run import Conversation, MediaPolicy
from vlm_run.engine.image_fetcher import Fetcher
from vlm_run.errors import MediaError
from vlm_run.prompts.conversation import Image

from ..media.conftest import Server

LOCAL = MediaPolicy(allow_private_addresses=True)
PATIENT = MediaPolicy(allow_private_addresses=True, timeout_s=3600)


@pytest.fixture
def image_server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def test_urls_become_bytes_in_their_places(image_server: Server) -> None:
    a, b = image_server.at("/a", b"A"), image_server.at("/b", b"B")
    turns = [
        {"role": "user", "content": f"<img>{b}</img>Q"},
        {"role": "assistant", "content": "A"},
        {"role": "user", "content": f"<img>local.png</img><img>{a}</img>Q"},
    ]
    done = asyncio.run(Fetcher(LOCAL).with_content(Conversation.from_messages(turns)))
    assert done.image_places() == [(0, Image(b"B")), (2, Image("local.png")), (2, Image(b"A"))]
    assert done.template_messages() == Conversation.from_messages(turns).template_messages()


def test_bounds_stay_with_what_was_fetched(image_server: Server) -> None:
    url = image_server.at("/a", b"A")
    conversation = Conversation.from_query("Q", images=[url]).with_pixel_bounds(1, 784)
    done = asyncio.run(Fetcher(LOCAL).with_content(conversation))
    assert done.image_places() == [(0, Image(b"A", 1, 784))]


def test_images_are_fetched_at_once(image_server: Server) -> None:
    together = threading.Barrier(5)

    def missing(handler: BaseHTTPRequestHandler) -> None:
        together.wait()  # until all five are asked for
        handler.send_error(404)

    image_server.answers.update({f"/{number}": missing for number in range(5)})
    conversation = Conversation.from_query(
        "Q", images=[image_server.url(f"/{number}") for number in range(5)]
    )
    with pytest.raises(MediaError, match="404"):
        asyncio.run(Fetcher(PATIENT).with_content(conversation))


def test_the_image_at_fault_is_named_and_the_others_are_given_up(image_server: Server) -> None:
    ended = threading.Event()
    image_server.answers["/slow"] = lambda handler: ended.wait()
    images = [image_server.url("/slow"), image_server.url("/missing")]
    with pytest.raises(MediaError, match=r"^message 1, image 2: .* answers 404"):
        asyncio.run(Fetcher(PATIENT).with_content(Conversation.from_query("Q", images=images)))
    ended.set()


def slow(image_server: Server, path: str, content: bytes) -> str:
    """A URL that takes a moment."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.2)
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(content)

    image_server.answers[path] = answer
    return image_server.url(path)


def asking(url: str) -> Conversation:
    return Conversation.from_query("Q", images=[url])


@pytest.mark.parametrize("keep_bytes", [0, 1000])
def test_requests_that_wait_for_the_same_url_share_one_fetch(image_server: Server, keep_bytes: int) -> None:
    url = slow(image_server, "/a", b"A")

    async def several() -> list[Conversation]:
        fetcher = Fetcher(LOCAL, keep_bytes)
        return await asyncio.gather(*(fetcher.with_content(asking(url)) for _ in range(20)))

    assert {each.images for each in asyncio.run(several())} == {(b"A",)}
    assert len(image_server.asked) == 1


@pytest.mark.parametrize(("keep_bytes", "times"), [(0, 3), (1, 1), (1000, 1)])
def test_later_requests_of_a_batch_find_what_is_kept(
    image_server: Server, keep_bytes: int, times: int
) -> None:
    url = slow(image_server, "/a", b"A")

    async def one_after_the_other() -> None:
        fetcher = Fetcher(LOCAL, keep_bytes)
        for _ in range(3):
            await fetcher.with_content(asking(url))

    asyncio.run(one_after_the_other())
    assert len(image_server.asked) == times


def test_what_is_kept_stays_within_its_bounds(image_server: Server) -> None:
    first = slow(image_server, "/a", b"A" * 60)
    second = slow(image_server, "/b", b"B" * 60)

    async def in_turns() -> None:
        fetcher = Fetcher(LOCAL, keep_bytes=100)
        for url in (first, second, second, first):
            await fetcher.with_content(asking(url))

    asyncio.run(in_turns())
    assert [path for path, _ in image_server.asked] == ["/a", "/b", "/a"]


def test_a_request_that_is_given_up_does_not_take_the_image_from_another(image_server: Server) -> None:
    url = slow(image_server, "/a", b"A")

    async def give_one_up() -> Conversation:
        fetcher = Fetcher(LOCAL)
        first = asyncio.create_task(fetcher.with_content(asking(url)))
        second = asyncio.create_task(fetcher.with_content(asking(url)))
        await asyncio.sleep(0.1)
        first.cancel()
        return await second

    assert asyncio.run(give_one_up()).images == (b"A",)
    assert len(image_server.asked) == 1


def test_a_url_whose_requests_were_all_given_up_is_fetched_anew(image_server: Server) -> None:
    url = slow(image_server, "/a", b"A")

    async def give_all_up() -> Conversation:
        fetcher = Fetcher(LOCAL)
        first = asyncio.create_task(fetcher.with_content(asking(url)))
        await asyncio.sleep(0.1)
        first.cancel()
        await asyncio.sleep(0.05)
        return await fetcher.with_content(asking(url))

    assert asyncio.run(give_all_up()).images == (b"A",)
    assert len(image_server.asked) == 2
