"""Pages of documents as images in requests, on a server that was started with --allow-documents."""

from __future__ import annotations

import base64

import pytest

from ..media.pdfs import encrypted_pdf, pdf_of
from .conftest import QUESTION, ImageServer, Server, draw

WHICH = "Which picture has more red circles?"


def data_uri(content: bytes) -> str:
    return f"data:application/pdf;base64,{base64.b64encode(content).decode()}"


@pytest.fixture(scope="module")
def document() -> bytes:
    return pdf_of(draw(1), draw(3))


@pytest.mark.parametrize(("page", "answer"), [(1, "1"), (2, "3")])
def test_a_page_in_a_data_uri_is_an_image(server: Server, document: bytes, page: int, answer: str) -> None:
    url = f"{data_uri(document)}#page={page}"
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": QUESTION}]
    assert server.ask(parts) == answer
    assert server.ask(images=[url]) == answer
    assert server.ask(f"<img>{url}</img>{QUESTION}") == answer


def test_a_page_behind_a_url_is_an_image(server: Server, image_server: ImageServer, document: bytes) -> None:
    url = image_server.at("/doc.pdf", document)
    assert server.ask(images=[f"{url}#page=2"]) == "3"
    assert [path for path, _ in image_server.asked] == ["/doc.pdf"]


def test_all_pages_count_as_images(server: Server, document: bytes) -> None:
    assert server.ask(WHICH, images=[data_uri(document)]) == "the second"
    refusal = server.refusal(images=[data_uri(pdf_of(draw(1), draw(2), draw(3)))])
    assert "the request has 3 images, but the engine takes 2 at most" in refusal


REFUSED = {
    "a page that is not there": ("#page=3", "there is no page 3: the document has 2 pages"),
    "no range": ("#page=2-1", "'#page=2-1' names no pages. Write #page=2, #page=3-5 or #page=4-"),
}


@pytest.mark.parametrize(("pages", "cause"), REFUSED.values(), ids=REFUSED)
def test_pages_that_cannot_be_had_are_refused(
    server: Server, document: bytes, pages: str, cause: str
) -> None:
    refusal = server.refusal(images=[data_uri(document) + pages])
    assert refusal.startswith(f"message 1, image 1: {cause}")


def test_an_encrypted_document_is_refused(server: Server) -> None:
    assert "the PDF is encrypted and needs a password" in server.refusal(images=[data_uri(encrypted_pdf())])


def test_no_local_document_may_be_named(server: Server) -> None:
    assert "is not a URL or base64" in server.refusal(images=["/etc/doc.pdf#page=1"])
    assert "local files are not allowed" in server.refusal(images=["file:///etc/doc.pdf#page=1"])
