"""Data that is not a supported image is called by its name."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, features

from vlm_run import MediaPolicy
from vlm_run.errors import MediaError
from vlm_run.media.content_type import image_format
from vlm_run.media.decode import decode

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")


def refused(content: bytes, policy: MediaPolicy | None = None) -> str:
    with pytest.raises(MediaError) as caught:
        decode(content, policy or MediaPolicy())
    return str(caught.value)


def box(brand: bytes, *compatible: bytes) -> bytes:
    """The beginning of an ISO base media file."""
    content = b"ftyp" + brand + bytes(4) + b"".join(compatible)
    return (len(content) + 4).to_bytes(4, "big") + content + b"\0\0\0\x08mdat" + bytes(64)


UNSUPPORTED_IMAGES = {
    "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
    "SVG behind an XML declaration and a comment": (
        b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- Created with a tool -->\n<!DOCTYPE svg>\n<svg/>',
        "SVG",
    ),
    "SVG with a namespace prefix": (b'<svg:svg xmlns:svg="http://www.w3.org/2000/svg"/>', "SVG"),
    "JPEG XL": (b"\xff\x0a" + bytes(64), "JPEG XL"),
    "JPEG 2000": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(64), "JPEG 2000"),
    "PSD": (b"8BPS\0\x01" + bytes(64), "Photoshop"),
    "PPM": (b"P6\n2 2\n255\n" + bytes(12), "Netpbm"),
    "DICOM": (bytes(128) + b"DICM" + bytes(64), "DICOM"),
    "PostScript": (b"%!PS-Adobe-3.0\n", "PostScript"),
}
NO_IMAGES = {
    "PDF": (b"%PDF-1.7\n", "a PDF"),
    "PDF behind junk": (b"\r\n\r\n%PDF-1.4\n", "a PDF"),
    "HTML": (b"<!DOCTYPE html><html><head></head></html>", "an HTML page"),
    "HTML behind white space": (b"\n\n  <HTML lang='en'>", "an HTML page"),
    "HTML behind a comment": (b"<!-- cached --><!doctype html>", "an HTML page"),
    "HTML with an SVG in it": (b"<html><body><svg></svg></body></html>", "an HTML page"),
    "HTML in UTF-16": ("\ufeff<!doctype html>".encode("utf-16-le"), "an HTML page"),
    "comments without end": (b"<!---->" * 500 + b"<x>", "an XML document"),
    "an XML error": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an XML document"),
    "JSON": (b'{"error": {"code": 404}}', "JSON"),
    "a JSON array": (b' [{"message": "caf\xc3\xa9"}]', "JSON"),
    "Git LFS pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "a Git LFS pointer",
    ),
    "MP4": (box(b"isom", b"mp42"), "a video"),
    "QuickTime": (box(b"qt  "), "a video"),
    "QuickTime without a brand": (b"\0\0\0\x08wide\0\0\x10\0mdat" + bytes(64), "a video"),
    "WebM": (b"\x1a\x45\xdf\xa3" + bytes(64), "a video"),
    "AVI": (b"RIFF\0\0\0\0AVI LIST" + bytes(64), "a video"),
    "MPEG transport stream": ((b"\x47" + bytes(187)) * 3, "a video"),
    "WAV": (b"RIFF\0\0\0\0WAVEfmt " + bytes(64), "an audio file"),
    "M4A": (box(b"M4A "), "an audio file"),
    "ZIP": (b"PK\x03\x04" + bytes(64), "a ZIP archive"),
    "gzip": (b"\x1f\x8b\x08" + bytes(64), "gzip data"),
    "Parquet": (b"PAR1" + bytes(64), "a Parquet file"),
    "NumPy": (b"\x93NUMPY\x01\0" + bytes(64), "a NumPy array"),
    "base64": (b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ\n", "base64 text"),
    "a data URI": (b"data:image/png;base64,iVBORw0KGgo=", "a data URI"),
    "plain text": (b"Not Found\r\n", "text"),
    "text whose last character is cut in two": ("é".encode() * 2048 + b"\xc3", "text"),
}


@pytest.mark.parametrize("name", UNSUPPORTED_IMAGES)
def test_an_image_format_without_support_is_named(name: str) -> None:
    content, form = UNSUPPORTED_IMAGES[name]
    message = refused(content)
    assert message.startswith(form)
    assert "are not supported. Convert it to PNG or JPEG. Supported formats: JPEG, PNG," in message


@pytest.mark.parametrize("name", NO_IMAGES)
def test_what_is_not_an_image_is_named(name: str) -> None:
    content, kind = NO_IMAGES[name]
    assert refused(content).startswith(f"the data is {kind}, not an image. ")


def test_the_hint_says_what_to_do() -> None:
    assert "Use the address of the image itself." in refused(NO_IMAGES["HTML"][0])
    assert "git lfs pull" in refused(NO_IMAGES["Git LFS pointer"][0])
    assert "Extract a frame" in refused(NO_IMAGES["MP4"][0])


def test_an_error_body_is_not_repeated() -> None:
    # On a server it may come from a place that the client cannot reach.
    assert "hunter2" not in refused(b'{"password": "hunter2"}')


def test_an_empty_image_is_called_empty() -> None:
    assert refused(b"") == "the image is empty: it has 0 bytes. Check the file or the URL."


@pytest.mark.parametrize("content", [box(b"heic", b"mif1", b"heic"), box(b"mif1", b"heix")])
def test_a_server_names_heic_and_what_would_accept_it(content: bytes) -> None:
    assert image_format(content) == "HEIF"
    assert refused(content, MediaPolicy.for_server()) == (
        "HEIC images are not accepted here. Convert it to PNG or JPEG. A server accepts it with "
        "--allow-documents (in Python: MediaPolicy(allow_documents=True))."
    )
    assert refused(content).startswith("the HEIC image is damaged or truncated: ")


def test_anything_else_is_not_an_image() -> None:
    assert refused(bytes(1000)).startswith("the data is not an image. Supported formats: JPEG, PNG,")


@pytest.mark.parametrize("form", FORMATS)
def test_a_format_that_the_policy_leaves_out_is_named(form: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, form)
    others = tuple(name for name in FORMATS if name != form)
    message = refused(file.getvalue(), MediaPolicy(formats=others))
    assert message == f"{form} images are not allowed. Supported formats: {', '.join(others)}."


@pytest.mark.parametrize("form", FORMATS)
def test_supported_formats_are_recognised(form: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, form)
    assert image_format(file.getvalue()) == form
    assert decode(file.getvalue(), MediaPolicy()).size == (16, 16)


def test_a_format_that_the_build_of_pillow_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda name: name != "avif")
    monkeypatch.setattr("PIL.AvifImagePlugin.SUPPORTED", False)
    message = refused(box(b"avif", b"avif", b"mif1"))
    assert message == "the installed Pillow cannot decode AVIF images. Convert it to PNG or JPEG."


def test_a_policy_may_allow_further_formats_of_pillow() -> None:
    file = io.BytesIO()
    Image.new("RGB", (6, 4)).save(file, "PPM")
    assert decode(file.getvalue(), MediaPolicy(formats=("PPM",))).size == (6, 4)


@given(st.binary(max_size=300))
def test_any_data_is_refused_with_a_sentence(content: bytes) -> None:
    assert refused(content).endswith((".", "\n")) or "damaged or truncated" in refused(content)


@given(st.text(max_size=300))
def test_any_text_is_refused_with_a_sentence(text: str) -> None:
    message = refused(text.encode("utf-8", "surrogatepass"))
    assert message.isprintable()
