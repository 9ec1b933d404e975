"""Remote images are fetched at once and ahead of rendering; everything else stays as it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from vlm_run import Conversation, MediaPolicy
from vlm_run.conversation import Image
from vlm_run.engine.prefetch import prefetch
from vlm_run.errors import MediaError

from ..media.conftest import Server

LOCAL = MediaPolicy(allow_private_addresses=True)


@pytest.fixture
def pictures() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def test_urls_become_bytes_in_their_places(pictures: Server) -> None:
    a, b = pictures.at("/a", b"A"), pictures.at("/b", b"B")
    turns = [
        {"role": "user", "content": f"<img>{b}</img>Q"},
        {"role": "assistant", "content": "A"},
        {"role": "user", "content": f"<img>local.png</img><img>{a}</img>Q"},
    ]
    done = asyncio.run(prefetch(Conversation.from_messages(turns), LOCAL))
    assert done.image_places() == [(0, Image(b"B")), (2, Image("local.png")), (2, Image(b"A"))]
    assert done.template_messages() == Conversation.from_messages(turns).template_messages()


def test_bounds_stay_with_what_was_fetched(pictures: Server) -> None:
    url = pictures.at("/a", b"A")
    conversation = Conversation.from_query("Q", images=[url]).with_pixel_bounds(1, 784)
    assert asyncio.run(prefetch(conversation, LOCAL)).image_places() == [(0, Image(b"A", 1, 784))]


def test_images_are_fetched_at_once(pictures: Server) -> None:
    def slow(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.3)
        handler.send_error(404)

    pictures.answers.update({f"/{number}": slow for number in range(5)})
    conversation = Conversation.from_query("Q", images=[pictures.url(f"/{number}") for number in range(5)])
    started = time.monotonic()
    with pytest.raises(MediaError, match="404"):
        asyncio.run(prefetch(conversation, LOCAL))
    assert time.monotonic() - started < 1.2


def test_the_image_at_fault_is_named_and_the_others_are_given_up(pictures: Server) -> None:
    def hang(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(5)

    pictures.answers["/slow"] = hang
    images = [pictures.url("/slow"), pictures.url("/missing")]
    started = time.monotonic()
    with pytest.raises(MediaError, match=r"^message 1, image 2: .* answers 404"):
        asyncio.run(prefetch(Conversation.from_query("Q", images=images), LOCAL))
    assert time.monotonic() - started < 3
