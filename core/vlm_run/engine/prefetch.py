"""Fetches a conversation's remote images ahead of rendering, so that a slow host keeps nothing busy."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from vlm_run.conversation import Conversation, ImageSource
from vlm_run.errors import MediaError
from vlm_run.media import MediaPolicy
from vlm_run.media.fetch import fetch
from vlm_run.media.load import is_remote


async def prefetch(conversation: Conversation, policy: MediaPolicy) -> Conversation:
    """The conversation with the bytes of its http and https images in place of their URLs.

    Raises:
        MediaError: One cannot be fetched, or the policy forbids it; names the message and the image.
    """
    if not any(map(is_remote, conversation.images)):
        return conversation
    tasks = [
        asyncio.create_task(_content(image.source, policy, message, index))
        for index, (message, image) in enumerate(conversation.image_places())
    ]
    try:
        contents = iter(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
    return conversation.with_images(lambda image: replace(image, source=next(contents)))


async def _content(source: ImageSource, policy: MediaPolicy, message: int, image: int) -> ImageSource:
    if not is_remote(source):
        return source
    try:
        return await fetch(str(source), policy)
    except MediaError as error:
        raise MediaError(error.cause, hint=error.hint, message_index=message, image_index=image) from None
