"""Documents on the command line, answered by real vLLM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vlm_run_demo.showcase import draw

from ..media.pdfs import encrypted_pdf, pdf_of
from .conftest import Run

QUESTION = "How many shapes are there?"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("scans")
    (directory / "a.pdf").write_bytes(pdf_of(draw(1)[0], draw(2)[0]))
    (directory / "secret.pdf").write_bytes(encrypted_pdf())
    draw(3)[0].save(directory / "z.png")
    return directory


def test_a_page_is_given_as_an_image(run_on_engine: Run, directory: Path) -> None:
    answer = run_on_engine("infer", "demo-llava", QUESTION, "--image", f"{directory}/a.pdf#page=2", "--json")
    assert answer.exit_code == 0
    assert len(json.loads(answer.stdout)["usage"]["image_tokens_each"]) == 1
    missing = run_on_engine("infer", "demo-llava", QUESTION, "--image", f"{directory}/a.pdf#page=3", "--json")
    assert "there is no page 3: the document has 2 pages" in missing.stdout


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_directory_of_documents_is_a_batch_that_goes_on(
    run_on_engine: Run, directory: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    data = ("--val_dataset", str(directory), "--prompt", QUESTION, "--result-path", str(out))
    first = run_on_engine("infer", "demo-llava", *data)
    assert first.exit_code == 3, first.output  # a row failed
    found = lines(out)
    assert [(line["row"], line["file"], line.get("page")) for line in found] == [
        (0, "a.pdf", 1),
        (1, "a.pdf", 2),
        (2, "secret.pdf", None),
        (3, "z.png", None),
    ]
    assert [line["finish_reason"] for line in found] == ["stop", "stop", "error", "stop"]
    assert "the PDF is encrypted and needs a password" in found[2]["error"]["message"]

    out.write_text(out.read_text()[: out.read_text().index("\n") + 20])  # killed in the second line
    run_on_engine("infer", "demo-llava", *data)
    again = lines(out)
    assert again[0] == found[0]
    kept = ("row", "id", "file", "page", "response", "error")
    assert [{name: line.get(name) for name in kept} for line in again] == [
        {name: line.get(name) for name in kept} for line in found
    ]
