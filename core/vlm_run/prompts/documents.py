"""Conversations with documents: each page becomes an image."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from vlm_run.media.load import fetch_source, is_remote, locating_errors, single_images
from vlm_run.media.policy import MediaPolicy
from vlm_run.prompts.conversation import Conversation, Image


def with_pages(conversation: Conversation, policy: MediaPolicy) -> Conversation:
    """The conversation with an image for each page of a document, in the document's place.

    Files are read and URLs fetched: every image has bytes, a decoded image or one page of `Pages` as its
    source. Not for an event loop.

    Args:
        conversation: The conversation.
        policy: Which images may be loaded, and how large they may be.

    Raises:
        MediaError: An image is refused or cannot be fetched or read; names the message and the image.
    """
    places = iter(enumerate(conversation.image_places()))

    def images(image: Image) -> list[Image]:
        index, (message, _) = next(places)
        with locating_errors(message, index):
            source = (
                asyncio.run(fetch_source(image.source, policy)) if is_remote(image.source) else image.source
            )
            return [replace(image, source=single) for single in single_images(source, policy)]

    return conversation.with_each_image(images)
