"""Loads the images of a conversation: fetched bytes and pages become pixels for vLLM's processor."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, cast

from PIL import Image as PILImage

from vlm_run.boxes import ImageSize
from vlm_run.engine.cache_key import cache_key
from vlm_run.media import MediaPolicy
from vlm_run.media.decode import check_image, decode
from vlm_run.media.load import encoded, locating_errors
from vlm_run.media.pages import Document, Tiff, open_document
from vlm_run.media.source import Pages
from vlm_run.prompts.conversation import Conversation, Image

if TYPE_CHECKING:
    from vlm_run.adapter import Adapter

_MAX_SIZES = 100_000


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """An image to process.

    Attributes:
        cache_key: Its key in vLLM's caches.
        pixels: The decoded image; None if vLLM has its processed form in the cache.
        size: Its size; None if the model type has no `box_coordinates`.
        tokens: The expected number of image tokens, if it was decoded at a smaller size.
    """

    cache_key: str
    pixels: PILImage.Image | None
    size: ImageSize | None
    tokens: int | None = None


class ImageLoader:
    """Loads images for one model.

    Args:
        adapter: The model.
        policy: How large images may be.
        salt: What distinguishes this model's cache keys from those of others.
        is_processed: Whether vLLM's cache has the processed form of the image with this key. Such an image
            is not decoded.

    Attributes:
        full_resolution_only: Whether no image may be decoded at a lower resolution.
    """

    def __init__(
        self, adapter: Adapter, policy: MediaPolicy, salt: bytes, is_processed: Callable[[str], bool]
    ) -> None:
        self._adapter = adapter
        self._policy = policy
        self._salt = salt
        self._is_processed = is_processed
        # Sizes of images whose processed form is in the cache; these images are not decoded again.
        self._sizes: dict[str, ImageSize] = {}
        self.full_resolution_only = False

    async def load(self, conversation: Conversation, *, force: bool = False) -> list[LoadedImage]:
        """Return the images of a conversation whose sources have been fetched, in order.

        Args:
            conversation: The conversation.
            force: Whether to decode images that are in vLLM's cache as well.

        Raises:
            MediaError: An image is damaged, too large, or of a size that the model does not accept.
        """
        # Pages that follow each other are loaded together, so that their document is opened once.
        runs = groupby(enumerate(conversation.image_places()), key=_document_or_index)
        loaded = await asyncio.gather(
            *(asyncio.to_thread(self._load_run, list(run), force) for _, run in runs)
        )
        return [image for run in loaded for image in run]

    def _load_run(self, run: Sequence[tuple[int, tuple[int, Image]]], force: bool) -> list[LoadedImage]:
        """Load an image, or pages of one document."""
        index, (message, image) = run[0]
        if not isinstance(image.source, Pages):
            return [self._load_one(image, message, index, force)]
        content = image.source.content
        with locating_errors(message, index):
            document = open_document(content, self._policy)
        with document:
            digest = cache_key(content).encode()  # once for all pages
            return [
                self._load_page(document, digest, page, message, index, force)
                for index, (message, page) in run
            ]

    def _load_page(
        self, document: Document, digest: bytes, image: Image, message: int, index: int, force: bool
    ) -> LoadedImage:
        with locating_errors(message, index):
            number = cast(Pages, image.source).first
            usual = document.size(number)
            rendered_at, tokens = self._page_size(document, usual, image)
            key = self._cache_key(image, b"page %d %d %d " % (number, *rendered_at), digest)
            size = self._sizes.get(key)
            if not force and self._is_reusable(key, size):
                return LoadedImage(key, None, size)
            pixels = self._adapter.preprocess_image(document.render(number, rendered_at), image)
            return LoadedImage(key, pixels, self._size(usual, pixels), tokens)

    def _page_size(
        self, document: Document, usual: tuple[int, int], image: Image
    ) -> tuple[tuple[int, int], int | None]:
        """Return the size at which a page is loaded, and its expected image tokens if that is not the usual
        one."""
        if self.full_resolution_only or isinstance(document, Tiff):
            return usual, None
        size = self._adapter.page_size(*usual, image)
        if size == usual or image.min_pixels is not None or image.max_pixels is not None:
            return size, None
        return size, self._adapter.count_image_tokens(*usual)

    def _load_one(self, image: Image, message: int, index: int, force: bool) -> LoadedImage:
        with locating_errors(message, index):
            content: bytes | PILImage.Image
            if isinstance(image.source, PILImage.Image):
                content = check_image(image.source, self._policy)
                kind = f"picture {content.mode} {content.width} {content.height} ".encode()
                key = self._cache_key(image, kind, content.tobytes())
            else:
                content = encoded(image.source, self._policy)
                key = self._cache_key(image, b"file ", content)
            size = self._sizes.get(key)
            if not force and self._is_reusable(key, size):
                return LoadedImage(key, None, size)
            decoded = (
                _Decoded(content) if isinstance(content, PILImage.Image) else self._decode(content, image)
            )
            original = decoded.full_size or decoded.pixels.size
            pixels = self._adapter.preprocess_image(decoded.pixels, image)
            return LoadedImage(key, pixels, self._size(original, pixels), decoded.tokens)

    def _is_reusable(self, key: str, size: ImageSize | None) -> bool:
        """Return whether vLLM has the processed form of an image, and its size is known if that is needed."""
        if size is None and self._adapter.spec.box_coordinates is not None:
            return False
        return self._is_processed(key)

    def _decode(self, content: bytes, image: Image) -> _Decoded:
        if self.full_resolution_only or image.min_pixels is not None or image.max_pixels is not None:
            return _Decoded(decode(content, self._policy))
        tokens = full_size = None

        def allows_downscaled_decode(size: tuple[int, int], smaller: tuple[int, int]) -> bool:
            nonlocal tokens, full_size
            if not self._adapter.allows_downscaled_decode(size, smaller):
                return False
            tokens, full_size = self._adapter.count_image_tokens(*size), size
            return True

        return _Decoded(decode(content, self._policy, allows_downscaled_decode), full_size, tokens)

    def _size(self, original: tuple[int, int], pixels: PILImage.Image) -> ImageSize | None:
        if self._adapter.spec.box_coordinates is None:
            return None
        return ImageSize(*original, self._adapter.resized(*pixels.size))

    def remember_sizes(self, images: Sequence[LoadedImage]) -> None:
        """Keep the sizes of images that are in the cache from now on."""
        self._sizes |= {image.cache_key: image.size for image in images if image.size is not None}
        while len(self._sizes) > _MAX_SIZES:
            del self._sizes[next(iter(self._sizes))]

    def _cache_key(self, image: Image, kind: bytes, content: bytes) -> str:
        """Return a key that is the same in every process for the same content and bounds.

        Args:
            image: The image's part of the conversation, for its bounds.
            kind: What the content is.
            content: The encoded image, the decoded pixels, or the digest of a document.
        """
        bounds = f"{image.min_pixels} {image.max_pixels} ".encode()
        whole = b"whole " if self.full_resolution_only else b""
        return cache_key(self._salt, bounds, whole, kind, content)


def _document_or_index(place: tuple[int, tuple[int, Image]]) -> tuple[str, int]:
    """Return what pages of one document have in common, and no other two images."""
    index, (_, image) = place
    if isinstance(image.source, Pages):
        return "document", id(image.source.content)
    return "image", index


@dataclass(frozen=True, slots=True)
class _Decoded:
    """A decoded image.

    Attributes:
        pixels: The image.
        full_size: Its width and height in pixels, if it was decoded at a smaller size.
        tokens: The expected number of image tokens, if it was decoded at a smaller size.
    """

    pixels: PILImage.Image
    full_size: tuple[int, int] | None = None
    tokens: int | None = None
