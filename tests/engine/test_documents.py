"""Pages of documents as images, in questions to real vLLM."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vlm_run import Conversation, Engine
from vlm_run.engine.renderer import Rendered
from vlm_run.errors import ConversationError, MediaError
from vlm_run.media import Pages
from vlm_run.media.pdf import Pdf
from vlm_run_demo.drawing import COLOURS, Scene, Shape, paint

from ..media.pdfs import encrypted_pdf, pdf_of

QUESTION = "How many red circles are there?"


def circles(count: int) -> Image.Image:
    """An image with so many red circles."""
    shapes = tuple(
        Shape("circle", "red", 24.0 + 36 * place, 64, 12.0, 0.0, COLOURS["red"]) for place in range(count)
    )
    return paint(Scene(160, 128, (190, 190, 190), 0.3, (0, 0), shapes))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PDF with two red circles on its first page and three on its second."""
    path = tmp_path_factory.mktemp("documents") / "doc.pdf"
    path.write_bytes(pdf_of(circles(2), circles(3)))
    return path


def test_each_page_is_answered_about(engine: Engine, file: Path) -> None:
    sources: list[Any] = [f"{file}#page=1", f"{file}#page=2", Pages(file.read_bytes(), 2, 2)]
    answers = engine.infer([{"query": QUESTION, "images": [source]} for source in sources])
    assert [answer.response for answer in answers] == ["2", "3", "3"]


def test_a_document_is_an_image_for_each_page_in_its_place(engine: Engine, file: Path) -> None:
    (whole,) = engine.infer([{"query": QUESTION, "images": [str(file)]}])
    (single,) = engine.infer([{"query": QUESTION, "images": [f"{file}#page=1", f"{file}#page=2"]}])
    assert len(whole.usage.image_tokens) == 2
    assert (whole.response, whole.usage) == (single.response, single.usage)
    (tagged,) = engine.infer([{"query": f"<img>{file}</img>{QUESTION}"}])
    assert tagged.usage == whole.usage


def test_a_document_that_cannot_be_had_fails_alone(engine: Engine, file: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.pdf").write_bytes(encrypted_pdf())
    (tmp_path / "three.pdf").write_bytes(pdf_of(circles(1), circles(1), circles(1)))
    images = [tmp_path / "secret.pdf", f"{file}#page=2", tmp_path / "three.pdf", f"{file}#page=7"]
    answers = engine.infer([{"query": QUESTION, "images": [image]} for image in images])
    assert isinstance(answers[0].error, MediaError)
    assert "message 1, image 1: the PDF is encrypted" in str(answers[0].error)
    assert answers[1].response == "3"
    assert isinstance(answers[2].error, ConversationError)
    assert "the request has 3 images, but the engine takes 2 at most" in str(answers[2].error)
    assert "there is no page 7: the document has 2 pages" in str(answers[3].error)


def rendered(engine: Engine, *images: Any) -> Rendered:
    conversation = Conversation.from_query(QUESTION, images=[*images])
    return asyncio.run(engine._generator.front._renderer.render(conversation))


def keys(found: Rendered) -> list[str]:
    names: list[str] = found.engine_input["mm_hashes"]["image"]  # type: ignore[typeddict-item]
    return names


def test_a_page_is_processed_once_whatever_document_file_it_is_in(engine: Engine, file: Path) -> None:
    content = pdf_of(circles(1), circles(4))
    first = rendered(engine, content)
    again = rendered(engine, Pages(content, 2, 2), Pages(content, 1, 1))
    assert (first.reused_images, again.reused_images) == (0, 2)
    assert keys(again) == keys(first)[::-1]
    others = rendered(engine, pdf_of(circles(1), circles(3)))
    assert len({*keys(first), *keys(others)}) == 4


def test_the_size_of_a_page_is_part_of_its_key(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    content = pdf_of(circles(0))
    usual = keys(rendered(engine, content))
    monkeypatch.setattr(type(engine.adapter), "page_size", lambda *_: (320, 256))
    assert keys(rendered(engine, content)) != usual


def test_a_document_is_opened_as_often_for_two_pages_as_for_one(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[bytes] = []
    open_pdf = Pdf.__init__

    def count(self: Pdf, source: Any, policy: Any) -> None:
        opened.append(source)
        open_pdf(self, source, policy)

    monkeypatch.setattr(Pdf, "__init__", count)
    content = pdf_of(circles(2), circles(0))
    for pages in (Pages(content, 1, 1), Pages(content, 1, 2)):
        opened.clear()
        rendered(engine, pages)
        assert opened == [content, content]  # to count its pages, and to render them
