"""Pages of documents are images: PDFs and TIFFs, HEIC, and what is refused before anything is rendered."""

from __future__ import annotations

import base64
import io
import re
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageColor

from vlm_run import MediaPolicy, convert_to_base64
from vlm_run.errors import MediaError
from vlm_run.media import Pages, load_image
from vlm_run.media.load import single_images
from vlm_run.media.pages import split_pages
from vlm_run.media.pdf import Pdf

from . import pdfs
from .conftest import Server

COLOURS = ("red", "lime", "blue", "black", "white")
POLICY = MediaPolicy()


@pytest.fixture(scope="module")
def document() -> bytes:
    """A PDF of five pages, each in one of `COLOURS`."""
    return pdfs.pdf_of_colours(*COLOURS)


@pytest.fixture
def file(tmp_path: Path, document: bytes) -> Path:
    path = tmp_path / "my doc #1.pdf"
    path.write_bytes(document)
    return path


def colour(image: Image.Image) -> str:
    """The name of the colour that an image is nearest to."""
    seen: Any = image.getpixel((image.width // 2, image.height // 2))
    return min(
        COLOURS, key=lambda name: sum(abs(a - b) for a, b in zip(seen, ImageColor.getrgb(name), strict=True))
    )


def pages(source: Any, policy: MediaPolicy = POLICY) -> list[str]:
    """The colours of the images that a source is."""
    return [colour(load_image(each, policy)) for each in single_images(source, policy)]


def refused(source: Any, policy: MediaPolicy = POLICY) -> str:
    with pytest.raises(MediaError) as caught:
        pages(source, policy)
    return str(caught.value)


# --- Which pages a source names

RANGES = {
    "": COLOURS,
    "#page=2": ("lime",),
    "#page=3-5": ("blue", "black", "white"),
    "#page=4-": ("black", "white"),
    "#page=1-1": ("red",),
}
SOURCES: dict[str, Callable[[Path, bytes], str]] = {
    "path": lambda file, content: str(file),
    "file URL": lambda file, content: file.as_uri(),
    "base64": lambda file, content: base64.b64encode(content).decode(),
    "data URI": lambda file, content: f"data:application/pdf;base64,{base64.b64encode(content).decode()}",
}


@pytest.mark.parametrize("named", RANGES)
@pytest.mark.parametrize("kind", SOURCES)
def test_a_source_names_its_pages(kind: str, named: str, file: Path, document: bytes) -> None:
    assert tuple(pages(SOURCES[kind](file, document) + named)) == RANGES[named]


def test_paths_bytes_and_pages_are_sources_too(file: Path, document: bytes) -> None:
    assert tuple(pages(document)) == tuple(pages(file)) == COLOURS
    assert pages(Path(f"{file}#page=2")) == pages(Pages(document, 2, 2)) == ["lime"]


def test_a_file_whose_name_looks_so_is_that_file(tmp_path: Path, png: bytes) -> None:
    path = tmp_path / "a.png#page=2"
    path.write_bytes(png)
    assert load_image(str(path)).size == (6, 4)


def test_pages_of_a_url(server: Server, document: bytes) -> None:
    policy = MediaPolicy(allow_private_addresses=True)
    url = server.at("/doc", document)
    assert colour(load_image(f"{url}#page=3", policy)) == "blue"
    assert server.asked[0][0] == "/doc"


def test_convert_to_base64_keeps_the_pages(file: Path) -> None:
    (text,) = convert_to_base64(images=[f"{file}#page=2-3"])["images"]
    assert pages(text) == ["lime", "blue"]


@given(first=st.integers(1, 9_999_999), more=st.none() | st.integers(0, 1000), to_the_end=st.booleans())
def test_a_range_is_read_as_it_is_written(first: int, more: int | None, to_the_end: bool) -> None:
    last = None if to_the_end else first if more is None else min(first + more, 9_999_999)
    written = f"{first}-" if to_the_end else str(first) if more is None else f"{first}-{last}"
    assert split_pages(f"a#b.pdf#page={written}") == ("a#b.pdf", (first, last))


@given(
    st.text(max_size=8).filter(lambda text: not re.search(r"[0-9]|#page=", text))
    | st.sampled_from(["0", "0-2", "5-3", "-3", "1,2", "3--5", "1.5", "+1", "1e3", "99999999"])
)
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(MediaError, match=r"names no pages\. Write #page=2, #page=3-5 or #page=4-"):
        split_pages(f"doc.pdf#page={text}")


@given(first=st.integers(1, 1000), less=st.integers(1, 1000))
def test_a_range_does_not_run_backwards(first: int, less: int) -> None:
    with pytest.raises(MediaError, match="names no pages"):
        split_pages(f"doc.pdf#page={first}-{max(0, first - less)}")


# --- What is refused, with the cause and what to do


def test_pages_that_are_not_there(document: bytes) -> None:
    assert refused(Pages(document, 6, 6)) == "there is no page 6: the document has 5 pages"
    assert refused(Pages(document, 4, 9)) == "there is no page 9: the document has 5 pages"


def test_one_image_is_not_several_pages(file: Path) -> None:
    with pytest.raises(MediaError, match=r"the document has 5 pages\. Choose one, as #page=1\."):
        load_image(str(file))


@pytest.mark.parametrize(("named", "count"), [("", 5), ("#page=2-", 4), ("#page=1-3", 3)])
def test_too_many_pages_for_a_request(named: str, count: int, file: Path) -> None:
    message = refused(f"{file}{named}", MediaPolicy(max_pages=2))
    assert message.startswith(f"{count} pages are too many for one request, which takes 2 of a document. ")
    assert "--val_dataset" in message


BROKEN = {
    "encrypted": (pdfs.encrypted_pdf(), "the PDF is encrypted and needs a password. Remove it, for example"),
    "without pages": (pdfs.pdf_without_pages(), "the PDF has no pages"),
    "only a header": (b"%PDF-1.7\n", "the PDF is damaged: PDFium cannot read it"),
    "a page that is none": (
        pdfs.pdf_of_objects(pdfs.CATALOG, pdfs.ONE_PAGE, b"42"),
        "page 1 of the PDF is damaged: PDFium cannot read it",
    ),
    "a huge image": (
        pdfs.pdf_with_image(60_000, 60_000),
        "page 1 of the PDF has an image of 60000 × 60000 pixels, more than the 100,000,000 allowed",
    ),
    "empty": (b"", "the image is empty: it has 0 bytes"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_document_is_refused_with_its_cause(kind: str) -> None:
    content, cause = BROKEN[kind]
    assert refused(content).startswith(cause)


def test_a_truncated_pdf_is_an_error_or_its_pages(document: bytes) -> None:
    for end in range(10, len(document), 997):  # PDFium recovers what it finds
        with suppress(MediaError):
            assert pages(document[:end])


def test_a_file_that_is_too_large(file: Path) -> None:
    assert "is larger than" in refused(f"{file}#page=2", MediaPolicy(max_bytes=100))


def test_pages_of_an_image_are_refused(png: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png)
    message = "PNG images have no pages. Leave out #page=, or give a PDF or a TIFF."
    assert refused(f"{tmp_path}/a.png#page=1") == message
    assert refused(Pages(b"<html>")).startswith("the data is an HTML page, not an image")


def test_a_server_takes_no_documents_unless_asked(document: bytes) -> None:
    server = MediaPolicy.for_server()
    hint = "A server accepts it with --allow-documents (in Python: MediaPolicy(allow_documents=True))."
    assert refused(document, server) == f"the data is a PDF, and documents are not accepted here. {hint}"
    scan = Pages(pdfs.tiff_of_colours("red", "blue"), 2, 2)
    assert refused(scan, server) == f"pages of documents are not accepted here. {hint}"
    assert pages(document, server.model_copy(update={"allow_documents": True})) == [*COLOURS]


def test_without_pypdfium2_the_error_says_what_to_install(
    document: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    assert refused(document) == (
        "PDFs need the library pypdfium2, which is not installed. pip install 'vlm-run[documents]'"
    )


def test_paths_outside_the_allowed_directory_stay_secret(file: Path, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    policy = MediaPolicy(allowed_local_path=inside)
    there, nowhere = (refused(f"{path}#page=1", policy) for path in (file, tmp_path / "no.pdf"))
    assert there.replace(file.name, "") == nowhere.replace("no.pdf", "")


# --- Sizes, before anything is rendered


def size_of(content: bytes, policy: MediaPolicy = POLICY) -> tuple[int, int]:
    with Pdf(content, policy) as pdf:
        return pdf.size(1)


def test_a_page_has_150_pixels_per_inch() -> None:
    assert size_of(pdfs.pdf_of_one_page(595, 842)) == (1239, 1754)  # A4
    assert size_of(pdfs.pdf_of_one_page(612, 792), MediaPolicy(document_dpi=72)) == (612, 792)
    assert size_of(pdfs.pdf_of(Image.new("RGB", (301, 77)))) == (301, 77)


def test_a_rotated_page_is_upright() -> None:
    assert size_of(pdfs.pdf_of_one_page(72, 144, entries=b"/Rotate 90")) == (300, 150)


def test_a_page_of_ten_kilometres_is_not_rendered_in_full() -> None:
    # PDFium takes 1 cm for the smallest height that it draws of such a page.
    ten_km = 10_000 * 100 / 2.54 * 72
    policy = MediaPolicy(max_pixels=1_000_000)
    content = pdfs.pdf_of_one_page(ten_km, ten_km / 4)
    assert size_of(content, policy) == (2000, 500)
    assert load_image(content, policy).size == (2000, 500)
    assert load_image(content, policy, page_size=lambda width, height: (80, 20)).size == (80, 20)
    with pytest.raises(MediaError, match=r"page 1 of the PDF would have 2000 × 1000 pixels"):
        load_image(content, policy, page_size=lambda width, height: (2000, 1000))


def test_a_page_like_a_thread_is_refused() -> None:
    assert "too narrow" in refused(pdfs.pdf_of_one_page(1e7, 0.01))


def test_a_page_that_takes_too_long_is_given_up() -> None:
    # Ten seconds of work and more, if it were not given up.
    slow = pdfs.pdf_of_one_page(612, 792, b"0 0 612 792 re f\n" * 20_000)
    policy = MediaPolicy(timeout_s=0.05, document_dpi=300)
    assert refused(slow, policy) == "page 1 of the PDF takes longer than 0.05 s"


def test_a_filled_form_shows_what_was_entered() -> None:
    assert pages(pdfs.filled_form()) == ["black"]


def test_pages_are_rendered_in_many_threads() -> None:
    # PDFium crashes if two threads are in it, also with a document each.
    text = pdfs.pdf_of_text(*(f"The quick brown fox {number}" for number in range(20)))
    together = threading.Barrier(4)

    def render(_: int) -> set[bytes]:
        together.wait()
        return {load_image(text).tobytes() for _ in range(20)}

    with ThreadPoolExecutor(4) as threads:
        assert len(set().union(*threads.map(render, range(4)))) == 1


# --- TIFF, AVIF, HEIC


def test_frames_of_a_tiff_are_pages() -> None:
    scan = pdfs.tiff_of_colours("red", "lime", "blue")
    assert pages(Pages(scan)) == ["red", "lime", "blue"]
    assert load_image(Pages(scan, 3, 3)).size == (8, 4)
    assert refused(Pages(scan, 4, 4)) == "there is no page 4: the document has 3 pages"


def test_a_tiff_without_a_page_is_its_first(tmp_path: Path) -> None:
    path = tmp_path / "scan.tif"
    path.write_bytes(pdfs.tiff_of_colours("red", "lime"))
    assert pages(str(path)) == ["red"]
    assert pages(f"{path}#page=2") == ["lime"]


def test_a_damaged_tiff_is_refused() -> None:
    scan = pdfs.tiff_of_colours("red", "lime")
    assert "the TIFF image is damaged or truncated" in refused(Pages(scan[:20]))


def test_the_size_of_every_page_is_limited() -> None:
    scan = pdfs.tiff_of_colours("red", "lime")
    assert "7 × 4 pixels, more than the 24 allowed" in refused(Pages(scan, 2, 2), MediaPolicy(max_pixels=24))


def encoded(form: str, image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize("form", ["AVIF", "HEIF"])
def test_avif_and_heic_are_images(form: str) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    image = Image.new("RGB", (64, 32), "red")
    image.paste("blue", (32, 0, 64, 32))
    loaded = load_image(encoded(form, image, quality=95))
    assert loaded.size == (64, 32)
    assert colour(loaded.crop((0, 0, 32, 32))) == "red"
    assert colour(loaded.crop((32, 0, 64, 32))) == "blue"


def test_a_heic_of_a_phone_is_upright() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    image = Image.new("RGB", (64, 32), "red")
    image.paste("blue", (32, 0, 64, 32))
    loaded = load_image(encoded("HEIF", image, exif=exif.tobytes(), quality=95))
    assert loaded.size == (32, 64)
    assert colour(loaded.crop((0, 0, 32, 32))) == "red"


def test_the_pixels_of_a_heic_are_limited() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    heic = encoded("HEIF", Image.new("RGB", (64, 32)))
    assert "64 × 32 pixels, more than the 1,000 allowed" in refused(heic, MediaPolicy(max_pixels=1000))


def test_without_pillow_heif_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    phone = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)
    assert refused(phone) == (
        "HEIC images need the library pillow-heif, which is not installed. "
        "pip install 'vlm-run[heic]', or convert the image to PNG or JPEG."
    )
