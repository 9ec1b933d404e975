"""Documents as datasets: a row for each page, which knows its file and its page."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vlm_run.batch.row import Row, RowFormat, read_row
from vlm_run.batch.run import result_line
from vlm_run.batch.sources import Dataset, open_dataset
from vlm_run.cli.batch import default_result_path
from vlm_run.errors import VlmRunError
from vlm_run.media.load import single_images

from ..media.pdfs import encrypted_pdf, pdf_of_colours, tiff_of_colours


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Two PDFs, one of which needs a password, a TIFF with two frames and a image."""
    directory = tmp_path / "scans"
    (directory / "b").mkdir(parents=True)
    (directory / "a.pdf").write_bytes(pdf_of_colours("red", "lime", "blue"))
    (directory / "b" / "secret.PDF").write_bytes(encrypted_pdf())
    (directory / "c.tif").write_bytes(tiff_of_colours("red", "lime"))
    Image.new("RGB", (8, 8)).save(directory / "d.png")
    (tmp_path / "error.pdf").write_text("<html>404</html>")
    (tmp_path / "empty.pdf").touch()
    return directory


def rows(data: Dataset) -> list[Row]:
    row_format = RowFormat(data.directory, prompt="Which colour?", kept=data.kept)
    return [read_row(number, columns, row_format) for number, columns in data.rows()]


def line(row: Row) -> dict[str, Any]:
    assert row.error is None
    return result_line(row, None)


def test_a_document_has_a_row_for_each_page(directory: Path) -> None:
    path = directory / "a.pdf"
    data = open_dataset(str(path))
    assert data.total == 3
    found = rows(data)
    assert [row.id for row in found] == ["a.pdf#page=1", "a.pdf#page=2", "a.pdf#page=3"]
    assert {key: line(found[2])[key] for key in ("row", "id", "file", "page", "request")} == {
        "row": 2,
        "id": "a.pdf#page=3",
        "file": "a.pdf",
        "page": 3,
        "request": {"query": "Which colour?", "images": [f"{path.resolve()}#page=3"]},
    }


@pytest.mark.parametrize(
    ("named", "pages"),
    [("#page=2", [2]), ("#page=2-", [2, 3]), ("#page=1-3#2", [1, 2]), ("#2", [1, 2])],
)
def test_some_pages_of_a_document(directory: Path, named: str, pages: list[int]) -> None:
    data = open_dataset(f"{directory}/a.pdf{named}")
    assert [line(row)["page"] for row in rows(data)] == pages
    assert data.total == len(pages)


def test_the_pages_are_part_of_what_identifies_a_dataset(directory: Path) -> None:
    whole, some, others = (
        open_dataset(f"{directory}/a.pdf{named}").identity for named in ("", "#page=2", "#page=2-3")
    )
    assert len({str(identity) for identity in (whole, some, others)}) == 3


def test_a_tiff_has_a_row_for_each_frame(directory: Path) -> None:
    assert [row.id for row in rows(open_dataset(f"{directory}/c.tif"))] == ["c.tif#page=1", "c.tif#page=2"]


def test_a_directory_has_rows_for_pages_and_images(directory: Path) -> None:
    data = open_dataset(str(directory))
    found = rows(data)
    assert [(line(row)["file"], line(row).get("page")) for row in found] == [
        ("a.pdf", 1),
        ("a.pdf", 2),
        ("a.pdf", 3),
        ("b/secret.PDF", None),
        ("c.tif", None),
        ("d.png", None),
    ]
    assert data.total == len(found)


def test_a_document_that_cannot_be_opened_fails_in_its_row(directory: Path) -> None:
    row = rows(open_dataset(str(directory)))[3]
    assert row.request is not None
    from vlm_run import MediaPolicy

    with pytest.raises(VlmRunError, match="needs a password"):
        single_images(row.request.conversation.images[0], MediaPolicy())


def test_a_directory_of_images_has_the_rows_that_it_always_had(tmp_path: Path) -> None:
    for name in ("a", "b"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    data = open_dataset(str(tmp_path))
    assert set(data.identity) == {"files", "blake2b"}
    assert "file" not in line(rows(data)[0])


@pytest.mark.parametrize(
    ("named", "cause"),
    [
        ("a.pdf#page=9", "there is no page 9: the document has 3 pages"),
        ("a.pdf#page=x", "'#page=x' names no pages"),
        ("b/secret.PDF", "the PDF is encrypted and needs a password"),
        ("../error.pdf", "the data is an HTML page, not an image"),
        ("../empty.pdf", "the image is empty: it has 0 bytes"),
        ("none.pdf", "there is no file"),
        ("none.pdf#page=1", "there is no file"),
        ("d.png#page=1", "PNG images have no pages"),
    ],
)
def test_a_document_that_cannot_be_a_dataset_is_an_error(directory: Path, named: str, cause: str) -> None:
    with pytest.raises(VlmRunError, match=cause):
        open_dataset(f"{directory}/{named}")


def test_without_pypdfium2_a_directory_of_documents_is_an_error(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    with pytest.raises(VlmRunError, match=r"pypdfium2, .* pip install 'vlm-run\[documents\]'"):
        open_dataset(str(directory))


def test_the_result_file_is_named_after_the_document() -> None:
    assert str(default_result_path("in/doc.pdf#page=3-5", "m")) == "doc-page-3-5.m.jsonl"
