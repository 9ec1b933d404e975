"""`vlm-run infer --draw`: what is wrong is said before the engine starts, and what is drawn is the image."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from vlm_run import Box, MediaPolicy, Registry, VlmRunError
from vlm_run.cli import app
from vlm_run.cli.draw import Drawing

GREY = (128, 128, 128)
QWEN = Registry.load("qwen2-vl-7b-instruct")


@pytest.fixture
def image_file(tmp_path: Path) -> str:
    """A photo of 60 x 40 pixels that lies on its side."""
    image = Image.new("RGB", (40, 60), GREY)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "image.jpg", exif=exif)
    return str(tmp_path / "image.jpg")


def test_boxes_are_drawn_on_the_upright_image(
    image_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawing = Drawing.prepare(tmp_path / "out.png", QWEN, "Where is it?", [image_file], MediaPolicy())
    drawing.write([Box("", 10, 5, 50, 35)])
    with Image.open(tmp_path / "out.png") as drawn:
        assert drawn.size == (60, 40)
        assert drawn.getpixel((10, 5)) != GREY
        assert drawn.getpixel((30, 20)) == GREY
    assert "1 box drawn" in capsys.readouterr().err


def test_without_boxes_nothing_is_written(
    image_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    question = f"<img>{image_file}</img>Where is it?"
    Drawing.prepare(tmp_path / "out.png", QWEN, question, [], MediaPolicy()).write([])
    assert not (tmp_path / "out.png").exists()
    assert "no boxes in the answer" in capsys.readouterr().err


def test_boxes_are_drawn_on_a_page_of_a_document(tmp_path: Path) -> None:
    pages = [Image.new("RGB", size, GREY) for size in ((90, 60), (60, 90))]
    pages[0].save(tmp_path / "doc.pdf", save_all=True, append_images=pages[1:], resolution=150)
    document, policy = str(tmp_path / "doc.pdf"), MediaPolicy(document_dpi=150)
    with pytest.raises(VlmRunError, match="the question has 2"):
        Drawing.prepare(tmp_path / "out.png", QWEN, "Where is it?", [document], policy)
    drawing = Drawing.prepare(tmp_path / "out.png", QWEN, "Where is it?", [f"{document}#page=2"], policy)
    assert drawing.image.size == (60, 90)


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (["demo-llava", "Where?", "-i", "IMAGE", "--draw", "OUT.png"], "of 'demo-llava' are not known"),
        (["qwen2-vl-7b-instruct", "Where?", "--draw", "OUT.png"], "one image, but the question has 0"),
        (["qwen2-vl-7b-instruct", "Where?", "-i", "a", "-i", "b", "--draw", "OUT.png"], "the question has 2"),
        (["qwen2-vl-7b-instruct", "Where?", "-i", "IMAGE", "--draw", "OUT.txt"], "no suffix of an image"),
        (["qwen2-vl-7b-instruct", "Where?", "-i", "IMAGE", "--draw", "no/OUT.png"], "is not a directory"),
        (["qwen2-vl-7b-instruct", "Where?", "-i", "no.png", "--draw", "OUT.png"], "image 1: 'no.png'"),
        (["qwen2-vl-7b-instruct", "--draw", "OUT.png"], "--draw needs a question or a task"),
        (["qwen2-vl-7b-instruct", "--val_dataset", "a.jsonl", "--draw", "OUT.png"], "have `boxes`"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_the_engine_starts(
    words: list[str], cause: str, image_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["infer", *(word.replace("IMAGE", image_file) for word in words)])
    assert result.exit_code != 0
    assert cause in str(result.exception)
