"""Loading: every kind of source, and errors that name the message and the image."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vlm_run import MediaPolicy
from vlm_run.errors import MediaError
from vlm_run.media import load_image, load_image_async

RED = (200, 10, 30)


@pytest.fixture
def file(tmp_path: Path, png: bytes) -> Path:
    """An image in a file whose name needs care in a URL."""
    path = tmp_path / "my image #1 ä.png"
    path.write_bytes(png)
    return path


def _is_it(image: Image.Image) -> bool:
    return (image.mode, image.size, image.getpixel((3, 2))) == ("RGB", (6, 4), RED)


def _refused(source: Any, policy: MediaPolicy | None = None) -> str:
    with pytest.raises(MediaError) as caught:
        load_image(source, policy)
    return str(caught.value)


# --- Kinds of source

SOURCES: dict[str, Callable[[bytes, Path], Any]] = {
    "path": lambda png, file: str(file),
    "Path": lambda png, file: file,
    "file URL": lambda png, file: file.as_uri(),
    "file URL with a host": lambda png, file: file.as_uri().replace("file://", "file://localhost"),
    "file URL in capitals": lambda png, file: file.as_uri().replace("file", "FILE", 1),
    "bytes": lambda png, file: png,
    "base64": lambda png, file: base64.b64encode(png).decode(),
    "url-safe base64": lambda png, file: base64.urlsafe_b64encode(png).decode(),
    "base64 without padding": lambda png, file: base64.b64encode(png).decode().rstrip("="),
    "base64 in lines": lambda png, file: base64.encodebytes(png).decode(),
    "data URI": lambda png, file: f"data:image/png;base64,{base64.b64encode(png).decode()}",
    "data URI in capitals": lambda png, file: f"DATA:image/png;BASE64,{base64.b64encode(png).decode()}",
    "data URI with quoted base64": lambda png, file: (
        f"data:image/png;base64,{quote(base64.b64encode(png).decode(), safe='')}"
    ),
    "data URI without base64": lambda png, file: f"data:image/png,{quote(png)}",
    "decoded image": lambda png, file: Image.new("RGB", (6, 4), RED),
    "opened image": lambda png, file: Image.open(file),
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_each_kind_of_source(source: Callable[[bytes, Path], Any], png: bytes, file: Path) -> None:
    assert _is_it(load_image(source(png, file)))


@pytest.mark.parametrize("before", ["", " ", "\n\t", "\u3000", "\ufeff", "\u200b "])
@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_white_space_around_a_text_is_ignored(
    source: Callable[[bytes, Path], Any], before: str, png: bytes, file: Path
) -> None:
    text = source(png, file)
    if isinstance(text, str):
        assert _is_it(load_image(f"{before}{text}\r\n"))


def test_white_space_around_a_url_is_ignored(server: Any, png: bytes) -> None:
    policy = MediaPolicy(allow_private_addresses=True)
    assert _is_it(load_image(f" {server.at('/a.png', png)}\n", policy))


def test_white_space_inside_a_data_uri_is_ignored(png: bytes) -> None:
    body = base64.encodebytes(png).decode()
    assert _is_it(load_image(f"data:image/png; base64,\n  {body}"))


def test_a_data_uri_may_be_as_short_as_its_image() -> None:
    assert load_image("data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAACAUwAOw").size == (1, 1)


def test_a_url(server: Any, png: bytes) -> None:
    policy = MediaPolicy(allow_private_addresses=True)
    url = server.at("/a.png", png)
    assert _is_it(load_image(url, policy))
    assert _is_it(load_image(url.replace("http", "HTTP", 1), policy))


def test_the_home_directory(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(file.parent))
    assert _is_it(load_image(f"~/{file.name}"))
    assert _is_it(load_image(Path("~") / file.name))


@given(pad=st.integers(0, 64))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_base64_of_any_length(pad: int, png: bytes) -> None:
    content = png + b"\xfb\xef\xbe" * pad  # what follows an image's end is not looked at
    for encoded in (base64.b64encode(content), base64.urlsafe_b64encode(content)):
        for text in (encoded.decode(), encoded.decode().rstrip("=")):
            assert _is_it(load_image(text))


# --- Mistakes

MISTAKES: dict[str, tuple[Any, str]] = {
    "a missing file": ("nowhere.png", "'nowhere.png' is not a file, a URL or base64. Check the path, or"),
    "a missing file as Path": (Path("/nowhere.png"), "/nowhere.png is not a file"),
    "a missing file as URL": ("file:///nowhere.png", "/nowhere.png is not a file"),
    "nothing": ("", "'' is not a file, a URL or base64"),
    "a short word": ("sheep", "'sheep' is not a file, a URL or base64"),
    "a long path": ("no/" * 50 + "where.png", "'no/no/no/"),
    "base64 of one letter too many": ("A" * 41, "is not a file, a URL or base64"),
    "base64 of no image": (base64.b64encode(b"\1" * 99).decode(), "the data is not an image"),
    "text around base64": ("base64: " + "A" * 64, "is not a file, a URL or base64"),
    "an unknown scheme": (
        "ftp://host/a.png",
        "unknown scheme 'ftp' in 'ftp://host/a.png'. Known: http, https,",
    ),
    "a bucket": ("s3://bucket/a.png", "unknown scheme 's3'"),
    "a data URI without data": ("data:image/png;base64", "the data URI has no comma before its data"),
    "a data URI of no base64": ("data:image/png;base64,!", "the data URI does not have valid base64"),
    "an empty data URI": ("data:image/png;base64,", "the image is empty: it has 0 bytes"),
    "a data URI of text": ("data:,hello", "the data is text, not an image"),
    "no image at all": (None, "an image cannot be a NoneType. Give a URL, a path, base64, bytes or a"),
    "a number": (7, "an image cannot be a int"),
    "a list": (["a.png"], "an image cannot be a list"),
    "empty bytes": (b"", "the image is empty: it has 0 bytes"),
    "a path with a NUL": ("a\0b.png", "is not a file, a URL or base64"),
    "a Path with a NUL": (Path("a\0b.png"), "cannot be read: "),
    "a file URL with a NUL": ("file:///a%00b.png", "cannot be read: "),
    "a broken file URL": ("file://[/a.png", "is not a URL: "),
    "a file name too long": (Path("x" * 5000), "cannot be read: File name too long"),
    "no such user's home": (Path("~nobody-of-this-name/a.png"), "cannot be read: "),
}


@pytest.mark.parametrize(("source", "cause"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named(source: Any, cause: str) -> None:
    message = _refused(source)
    assert cause in message
    assert len(message) < 300


def test_a_directory_is_not_a_file(tmp_path: Path) -> None:
    directory = tmp_path / "a-directory-whose-path-could-be-base64"
    directory.mkdir()
    assert _refused(directory) == f"{directory} is not a file"
    assert _refused(str(directory)) == f"{directory} is not a file"
    assert _refused(directory.as_uri()) == f"{directory} is not a file"


def test_a_file_that_is_not_an_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("<html></html>")
    assert _refused(tmp_path / "a.png").startswith("the data is an HTML page, not an image")


def test_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to(tmp_path / "a.png")
    assert "cannot be read: " in _refused(tmp_path / "a.png")


def test_long_text_that_looks_like_base64_is_refused() -> None:
    # With a pattern that backtracks this would take hours.
    assert "is not a file, a URL or base64" in _refused("A" + " " * 1_000_000 + "!")
    assert "is not a file, a URL or base64" in _refused("A" * 1_000_000 + "!")


def test_a_file_is_loaded_in_a_running_event_loop(tmp_path: Path) -> None:
    Image.new("RGB", (3, 2)).save(tmp_path / "a.png")

    async def load() -> Image.Image:
        return load_image(tmp_path / "a.png")

    assert asyncio.run(load()).size == (3, 2)


@settings(max_examples=200)
@given(source=st.text(max_size=80) | st.binary(max_size=80))
def test_no_source_raises_anything_but_a_media_error(source: str | bytes) -> None:
    with pytest.raises(MediaError):
        load_image(source, MediaPolicy(allow_local_files=False, allowed_domains=()))


# --- Which message and image


@pytest.mark.parametrize(
    "source",
    ["nowhere.png", b"", None, "http://127.0.0.1/a.png", Image.new("RGB", (0, 1))],
    ids=["path", "bytes", "None", "URL", "image without pixels"],
)
def test_an_error_names_message_and_image(source: Any) -> None:
    with pytest.raises(MediaError) as caught:
        load_image(source, message_index=2, image_index=0)
    assert (caught.value.message_index, caught.value.image_index) == (2, 0)
    assert str(caught.value).startswith("message 3, image 1: ")


def test_an_error_keeps_its_hint() -> None:
    with pytest.raises(MediaError) as caught:
        load_image("http://127.0.0.1/a.png", image_index=4)
    assert str(caught.value).startswith("image 5: 127.0.0.1 has the private or special address 127.0.0.1. ")
    assert caught.value.hint is not None


# --- Policy


def test_a_server_reads_no_file(file: Path) -> None:
    policy = MediaPolicy.for_server()
    for source in (file, file.as_uri()):
        assert _refused(source, policy) == "local files are not allowed"
    assert _refused("/etc/passwd", policy).startswith("'/etc/passwd' is not a URL or base64")


def test_a_server_does_not_tell_which_files_there_are(file: Path) -> None:
    policy = MediaPolicy.for_server()
    there, gone = str(file), str(file.with_name("my image #2 ä.png"))
    assert _refused(there, policy).replace(there, "X") == _refused(gone, policy).replace(gone, "X")


def test_only_files_below_the_allowed_directory_are_read(tmp_path: Path, png: bytes) -> None:
    allowed, secret = tmp_path / "allowed", tmp_path / "allowed-not" / "secret.png"
    for path in (allowed / "deep" / "a.png", secret):
        path.parent.mkdir(parents=True)
        path.write_bytes(png)
    (allowed / "link.png").symlink_to(secret)
    (tmp_path / "way-in").symlink_to(allowed)
    policy = MediaPolicy(allowed_local_path=tmp_path / "way-in")
    for inside in (allowed / "deep" / "a.png", tmp_path / "way-in" / "deep" / "a.png"):
        assert _is_it(load_image(inside, policy))
    for outside in (secret, allowed / "link.png", allowed / ".." / "allowed-not" / "secret.png"):
        assert _refused(outside, policy) == f"{outside} is not below the allowed directory"
        assert " is not a file below the allowed directory, a URL or base64" in _refused(str(outside), policy)


@pytest.mark.parametrize("kind", ["path", "Path", "file URL", "bytes", "base64", "data URI"])
def test_the_limit_on_bytes_holds_for_every_source(kind: str, png: bytes, file: Path) -> None:
    source = SOURCES[kind](png, file)
    assert _is_it(load_image(source, MediaPolicy(max_bytes=len(png))))
    assert "is larger than" in _refused(source, MediaPolicy(max_bytes=len(png) - 1))


@pytest.mark.parametrize("kind", ["path", "bytes", "base64", "decoded image", "opened image"])
def test_the_limit_on_pixels_holds_for_every_source(kind: str, png: bytes, file: Path) -> None:
    source = SOURCES[kind](png, file)
    assert "more than the 23 allowed" in _refused(source, MediaPolicy(max_pixels=23))


# --- In an event loop


def test_a_slow_host_holds_up_nothing_else(server: Any, png: bytes) -> None:
    asked, answered = threading.Event(), threading.Event()

    def wait(handler: BaseHTTPRequestHandler) -> None:
        asked.set()
        answered.wait()
        handler.send_error(404)

    server.answers["/slow.png"] = wait
    policy = MediaPolicy(allow_private_addresses=True, timeout_s=3600)

    async def both() -> None:
        slow = asyncio.create_task(load_image_async(server.url("/slow.png"), policy))
        await asyncio.to_thread(asked.wait)
        await load_image_async(png, policy)
        assert not slow.done()
        answered.set()
        with pytest.raises(MediaError, match="404"):
            await slow

    asyncio.run(both())
