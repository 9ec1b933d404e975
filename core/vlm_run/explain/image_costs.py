"""The images of a conversation: their sizes, pages and image tokens."""

from __future__ import annotations

import os
import re
import warnings
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from vlm_run.errors import MediaError, MediaWarning, UnknownTokenCountError
from vlm_run.explain.explanation import ImageCost
from vlm_run.media.source import PAGE_MARK, ImageSource, Pages
from vlm_run.prompts.conversation import Conversation, Image

if TYPE_CHECKING:
    from PIL import Image as PILImage

    from vlm_run.adapter import Adapter
    from vlm_run.media import MediaPolicy

_SIZE = re.compile(r"(\d{1,6})[xX×](\d{1,6})")


def with_each_image(conversation: Conversation, policy: MediaPolicy | None) -> Conversation:
    """The conversation with an image for each page of its documents and for each size such as "640x480"."""
    from vlm_run.media import MediaPolicy  # imports Pillow
    from vlm_run.media.load import locating_errors
    from vlm_run.prompts.documents import with_pages

    policy = policy or MediaPolicy()
    places = iter(enumerate(conversation.image_places()))

    def sized(image: Image) -> Image:
        index, (message, _) = next(places)
        with locating_errors(message, index):
            return replace(image, source=_of_size(image.source, policy))

    return with_pages(conversation.with_images(sized), policy)


def _of_size(source: ImageSource, policy: MediaPolicy) -> ImageSource:
    """An image of the size that the source is; any other source as it is."""
    size = _SIZE.fullmatch(source) if isinstance(source, str) and not os.path.isfile(source) else None
    if size is None:
        return source
    from PIL import Image as PILImage

    width, height = int(size[1]), int(size[2])
    if not 0 < width * height <= policy.max_pixels:
        raise MediaError(
            f"an image cannot have {width} × {height} pixels: 1 to {policy.max_pixels:,} are allowed"
        )
    return PILImage.new("RGB", (width, height))


def image_costs(
    adapter: Adapter, conversation: Conversation, policy: MediaPolicy | None, notes: list[str]
) -> tuple[ImageCost, ...]:
    from vlm_run.media import load_image  # imports Pillow
    from vlm_run.media.load import locating_errors

    costs = []
    for index, (message, image) in enumerate(conversation.image_places()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MediaWarning)  # the note says it
            loaded = load_image(
                image.source,
                policy,
                page_size=partial(adapter.page_size, bounds=image),
                message_index=message,
                image_index=index,
            )
        notes += _image_notes(index + 1, loaded, image.source)
        with locating_errors(message, index):
            cost = _cost(adapter, loaded, image, notes)
        page = image.source.first if isinstance(image.source, Pages) else None
        costs.append(replace(cost, page=page))
    return tuple(costs)


def _image_notes(number: int, loaded: PILImage.Image, source: ImageSource) -> list[str]:
    from vlm_run.media import MediaPolicy
    from vlm_run.media.content_type import image_format
    from vlm_run.media.decode import NOTE, frame_sizes

    notes = []
    if note := loaded.info.get(NOTE):
        notes.append(f"image {number} may be too bright or too dark: {note}")
    if not isinstance(source, bytes) or image_format(source) != "TIFF":
        return notes
    with suppress(MediaError):  # a later page may be damaged
        pages = len(frame_sizes(source, MediaPolicy()))
        if pages > 1:
            notes.append(f"image {number} is the first of {pages} pages; {PAGE_MARK}1- takes all")
    return notes


def _cost(adapter: Adapter, loaded: PILImage.Image, image: Image, notes: list[str]) -> ImageCost:
    seen = adapter.preprocess_image(loaded, image).size
    adapter = adapter.for_image(image)
    tokens = None
    try:
        tokens = adapter.count_image_tokens(*seen)
    except UnknownTokenCountError as error:
        notes.append(f"image tokens are not counted: {error.cause}")
    return ImageCost(*loaded.size, resized=adapter.resized(*seen), tokens=tokens)
