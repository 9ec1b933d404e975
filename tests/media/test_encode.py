"""Images as base64 text, which `load_image` reads again."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from vlm_run import convert_to_base64
from vlm_run.media import load_image


def test_files_and_bytes_become_base64(tmp_path: Path, png: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png)
    encoded = base64.b64encode(png).decode()
    assert convert_to_base64(images=[str(path), path, png]) == {"images": [encoded] * 3}


def test_what_needs_no_encoding_stays_as_it_is() -> None:
    images = ["http://host/a.png", "https://host/a.png", "data:image/png;base64,AAAA", None]
    assert convert_to_base64(images=images) == {"images": images}


def test_the_home_directory(tmp_path: Path, png: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(png)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert convert_to_base64(images=["~/a.png"]) == convert_to_base64(images=[png])


def test_a_missing_file_is_an_error() -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.png"):
        convert_to_base64(images=["nowhere.png"])


def test_an_encoded_image_can_be_loaded(png: bytes) -> None:
    (encoded,) = convert_to_base64(images=[png])["images"]
    assert load_image(encoded).tobytes() == load_image(png).tobytes()
