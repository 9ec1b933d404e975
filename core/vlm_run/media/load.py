"""Loads an image from any kind of source."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from PIL import Image

from vlm_run.errors import MediaError, as_request_error, printable
from vlm_run.media.decode import check_image, decode
from vlm_run.media.pages import PageRange, PageSize, open_document, single_pages, split_pages
from vlm_run.media.policy import MIB, MediaPolicy
from vlm_run.media.source import PAGE_MARK, Frames, ImageSource, Pages, VideoSource, trimmed

Fetch: TypeAlias = Callable[[str, MediaPolicy], Awaitable[bytes]]
"""Returns the bytes behind a URL."""

_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]*")
# Shorter text is more likely a mistyped path than an image.
_SHORTEST_BASE64 = 40


def load_image(
    source: ImageSource,
    policy: MediaPolicy | None = None,
    *,
    page_size: PageSize | None = None,
    message_index: int | None = None,
    image_index: int | None = None,
) -> Image.Image:
    """Load an image from its source, upright, in RGB.

    Args:
        source: A URL, a path, base64 text, a data URI, encoded bytes, a decoded image, or one page of a
            document.
        policy: Which sources are allowed; `MediaPolicy()` by default.
        page_size: Gives the size at which a page of a PDF is rendered from its size at the policy's
            resolution, as `Adapter.page_size` does; None for the latter.
        message_index: Index of the message, for errors.
        image_index: Index of the image in the conversation, for errors.

    Raises:
        MediaError: The source is refused or cannot be read, is not a complete image, or names several
            pages.
    """
    policy = policy or MediaPolicy()
    with locating_errors(message_index, image_index):
        if is_remote(source):
            source = asyncio.run(fetch_source(source, policy))
        return _load(source, policy, page_size)


async def load_image_async(
    source: ImageSource,
    policy: MediaPolicy | None = None,
    *,
    page_size: PageSize | None = None,
    message_index: int | None = None,
    image_index: int | None = None,
) -> Image.Image:
    """As `load_image`, for an event loop: slow hosts and decoding do not block it."""
    policy = policy or MediaPolicy()
    with locating_errors(message_index, image_index):
        source = await fetch_source(source, policy)
        return await asyncio.to_thread(_load, source, policy, page_size)


async def fetch_source(source: ImageSource, policy: MediaPolicy, fetch: Fetch | None = None) -> ImageSource:
    """The content, or the pages, behind an http or https URL; any other source as it is.

    Args:
        source: The source.
        policy: What may be fetched.
        fetch: Fetches a URL; by default `vlm_run.media.fetch.fetch`.

    Raises:
        MediaError: The policy forbids it, or it cannot be fetched.
    """
    if not is_remote(source):
        return source
    if fetch is None:
        from vlm_run.media.fetch import fetch as fetch_url

        fetch = fetch_url
    url, pages = split_pages(str(trimmed(source)))
    content = await fetch(url, policy)
    return content if pages is None else Pages(content, *pages)


async def fetch_video(source: VideoSource, policy: MediaPolicy, fetch: Fetch | None = None) -> VideoSource:
    """The content behind an http or https URL, or frames with theirs; any other source as it is.

    Args:
        source: The source.
        policy: What may be fetched.
        fetch: Fetches a URL; by default `vlm_run.media.fetch.fetch`.

    Raises:
        MediaError: The policy forbids it, or it cannot be fetched.
    """
    if isinstance(source, Frames):
        images = await asyncio.gather(*(fetch_source(image, policy, fetch) for image in source.images))
        return replace(source, images=tuple(images))
    return await fetch_source(source, for_videos(policy), fetch)  # type: ignore[return-value]  # it has no pages


@contextmanager
def locating_errors(
    message_index: int | None, image_index: int | None = None, video_index: int | None = None
) -> Iterator[None]:
    """Add the message and the image, or the video, to an error that is raised in the block.

    Whatever a library raises becomes a `MediaError`; errors of vlm-run other than `MediaError` stay as they
    are.
    """
    try:
        yield
    except Exception as error:
        known = as_request_error(error)
        if known is error and not isinstance(error, MediaError):
            raise
        raise MediaError(
            known.cause,
            hint=known.hint,
            message_index=message_index,
            image_index=image_index,
            video_index=video_index,
        ) from None


def is_remote(source: ImageSource | VideoSource) -> bool:
    """Whether a source is an http or https URL, or frames one of which is."""
    if isinstance(source, Frames):
        return any(map(is_remote, source.images))
    source = trimmed(source)
    scheme = _SCHEME.match(source) if isinstance(source, str) and source[:4].lower() == "http" else None
    return scheme is not None and scheme[1].lower() in ("http", "https")


def _load(source: ImageSource, policy: MediaPolicy, page_size: PageSize | None) -> Image.Image:
    first, *others = single_images(source, policy)
    if others:
        raise MediaError(f"the document has {1 + len(others)} pages", hint="Choose one, as #page=1.")
    if isinstance(first, Image.Image):
        return check_image(first, policy)
    if not isinstance(first, Pages):
        return decode(first, policy)
    with open_document(first.content, policy) as document:
        size = document.size(first.first)
        return document.render(first.first, page_size(*size) if page_size else size)


def single_images(source: ImageSource, policy: MediaPolicy) -> list[bytes] | list[Pages] | list[Image.Image]:
    """The images of a source that is not remote: each page of a document, or the one image.

    Files are read, and text is decoded. Pages of a document share its content.

    Raises:
        MediaError: The source is refused or cannot be read, or the document cannot be opened.
    """
    if isinstance(source, Image.Image):
        return [source]
    if isinstance(source, Pages):
        return single_pages(source.content, (source.first, source.last), policy) or []
    pages: PageRange | None = None
    if isinstance(source, (str, Path)) and PAGE_MARK in str(source) and not _is_file(source, policy):
        place, pages = split_pages(str(trimmed(source)))
        source = Path(place) if isinstance(source, Path) else place
    content = encoded(source, policy)
    return single_pages(content, pages, policy) or [content]


def _is_file(source: str | Path, policy: MediaPolicy) -> bool:
    """Whether a source is a file of that very name, which may contain `#page=`."""
    return policy.allow_local_files and _exists(str(trimmed(source)), policy.allowed_local_path)


def encoded(source: ImageSource, policy: MediaPolicy) -> bytes:
    """The encoded image of a source that is neither remote nor a decoded image, and names no pages.

    Raises:
        MediaError: The source is refused or cannot be read.
    """
    source = trimmed(source)
    if isinstance(source, bytes):
        return _limited(source, policy)
    if isinstance(source, Path):
        return _read_file(source, policy)
    if not isinstance(source, str):
        raise MediaError(
            f"an image cannot be a {type(source).__name__}",
            hint="Give a URL, a path, base64, bytes or a PIL image.",
        )
    if source[:5].lower() == "data:":
        return _limited(_from_data_uri(source, policy), policy)
    if scheme := _SCHEME.match(source):
        return _from_url(scheme[1].lower(), source, policy)
    if policy.allow_local_files and _exists(source, policy.allowed_local_path):
        return _read_file(Path(source), policy)
    return _limited(_from_base64(source, policy), policy)


def encoded_video(source: VideoSource, policy: MediaPolicy) -> bytes | Frames:
    """The encoded video of a source that is not remote, or frames that are encoded or decoded images.

    Raises:
        MediaError: The source is refused or cannot be read.
    """
    if isinstance(source, bytes):
        return source  # `sample_video` checks its size
    if not isinstance(source, Frames):
        return encoded(source, for_videos(policy))
    images: list[ImageSource] = []
    for number, image in enumerate(source.images, 1):
        with naming_frame(number):
            images.append(image if isinstance(image, Image.Image) else encoded(image, policy))
    return replace(source, images=tuple(images))


@contextmanager
def naming_frame(number: int) -> Iterator[None]:
    """Add the number of a frame, counted from 1, to a `MediaError` that is raised in the block."""
    try:
        yield
    except MediaError as error:
        raise MediaError(f"frame {number}: {error.cause}", hint=error.hint) from None


def for_videos(policy: MediaPolicy) -> MediaPolicy:
    """The policy with the limits on the size of videos in place of those on images."""
    return policy.model_copy(
        update={"max_bytes": policy.max_video_bytes, "timeout_s": policy.video_timeout_s}
    )


def _from_url(scheme: str, url: str, policy: MediaPolicy) -> bytes:
    if scheme == "file":
        try:
            path = Path(unquote(urlsplit(url).path))
        except ValueError as error:
            raise MediaError(f"'{printable(url)}' is not a URL: {error}") from None
        return _read_file(path, policy)
    raise MediaError(
        f"unknown scheme '{scheme}' in '{printable(url)}'", hint="Known: http, https, file, data."
    )


def _read_file(path: Path, policy: MediaPolicy) -> bytes:
    if not policy.allow_local_files:
        raise MediaError("local files are not allowed")
    below = policy.allowed_local_path
    try:
        given, path = path, path.expanduser().resolve()
        if below is not None and not path.is_relative_to(below.resolve()):
            raise MediaError(f"{given} is not below the allowed directory")
        if not path.is_file():
            raise MediaError(f"{path} is not a file")
        if path.stat().st_size > policy.max_bytes:
            raise MediaError(f"{path} is larger than {policy.max_bytes / MIB:g} MiB")
        return path.read_bytes()
    except (OSError, ValueError, RuntimeError) as error:  # as in `_exists`, or circular links
        reason = getattr(error, "strerror", None) or error
        raise MediaError(f"'{printable(str(path))}' cannot be read: {reason}") from None


def _from_data_uri(uri: str, policy: MediaPolicy) -> bytes:
    head, comma, body = uri.partition(",")
    if not comma:
        raise MediaError("the data URI has no comma before its data")
    if "".join(head.split()).lower().endswith(";base64"):
        content = _decoded(unquote(body))
        if content is None:
            raise MediaError("the data URI does not have valid base64 after its comma")
        return content
    return unquote_to_bytes(body)


def _from_base64(text: str, policy: MediaPolicy) -> bytes:
    if len(text) > policy.max_bytes * 4 // 3 + 4:
        raise MediaError(f"the image is larger than {policy.max_bytes / MIB:g} MiB")
    file = "a file, " if policy.allowed_local_path is None else "a file below the allowed directory, "
    kinds = f"{file if policy.allow_local_files else ''}a URL or base64"
    neither = MediaError(f"'{printable(text)}' is not {kinds}", hint="Check the path, or the data.")
    content = _decoded(text)
    if content is None or len(content) * 4 // 3 < _SHORTEST_BASE64:
        raise neither
    return content


def _decoded(text: str) -> bytes | None:
    """The data of base64 text in either alphabet, with padding or not; None if it is not base64."""
    compact = "".join(text.split()).rstrip("=")
    if not _BASE64.fullmatch(compact):
        return None
    try:
        return base64.b64decode(
            compact + "=" * (-len(compact) % 4), altchars=b"-_" if "-" in compact or "_" in compact else None
        )
    except (binascii.Error, ValueError):
        return None


def _limited(content: bytes, policy: MediaPolicy) -> bytes:
    if len(content) > policy.max_bytes:
        raise MediaError(f"the image is larger than {policy.max_bytes / MIB:g} MiB")
    return content


def _exists(source: str, below: Path | None) -> bool:
    """Whether a text is the path of an existing file. Reveals nothing about paths outside `below`."""
    try:
        path = Path(source).expanduser()
        if below is not None and not path.resolve().is_relative_to(below.resolve()):
            return False
        return bool(source) and path.exists()
    except (OSError, ValueError, RuntimeError):  # too long for a path, contains NUL, or an unknown ~user
        return False
