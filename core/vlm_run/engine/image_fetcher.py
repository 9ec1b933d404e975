"""Fetches a conversation's remote images ahead of rendering, so that a slow host keeps nothing busy."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from vlm_run.engine.loop_thread import all_or_none
from vlm_run.media import MediaPolicy
from vlm_run.media.fetch import fetch
from vlm_run.media.load import fetch_source, fetch_video, is_remote, locating_errors
from vlm_run.media.source import ImageSource, VideoSource
from vlm_run.prompts.conversation import Conversation

T = TypeVar("T")

_BATCH_BYTES = 256 * 1024 * 1024


class Fetcher:
    """Fetches the remote images of the requests of one batch, each URL once.

    Args:
        policy: What may be fetched.
        keep_bytes: How much of what was fetched is kept for the requests that follow. With 0 only
            those that wait at the same time share it, as a server must have it: what is behind a
            URL may change.
        timer: Gives a context manager that measures the time to fetch all images of a request.
    """

    def __init__(
        self,
        policy: MediaPolicy,
        keep_bytes: int = _BATCH_BYTES,
        timer: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._policy = policy
        self._timer = timer
        self._most = keep_bytes
        self._held = 0
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._running: dict[str, _Running] = {}

    async def with_content(self, conversation: Conversation) -> Conversation:
        """The conversation with the bytes of its http and https images and videos in place of their URLs.

        Raises:
            MediaError: One cannot be fetched, or the policy forbids it; names the message and the image or
                the video.
        """
        if any(map(is_remote, conversation.videos)):
            videos = await self._all(
                self._video_content(video.source, message, index)
                for index, (message, video) in enumerate(conversation.video_places())
            )
            conversation = conversation.with_videos(lambda video: replace(video, source=next(videos)))
        if any(map(is_remote, conversation.images)):
            images = await self._all(
                self._content(image.source, message, index)
                for index, (message, image) in enumerate(conversation.image_places())
            )
            conversation = conversation.with_images(lambda image: replace(image, source=next(images)))
        return conversation

    async def _all(self, contents: Iterable[Coroutine[Any, Any, T]]) -> Iterator[T]:
        with self._timer():
            return iter(await all_or_none(contents))

    async def _video_content(self, source: VideoSource, message: int, video: int) -> VideoSource:
        with locating_errors(message, video_index=video):
            return await fetch_video(source, self._policy, self._fetch)

    async def _content(self, source: ImageSource, message: int, image: int) -> ImageSource:
        with locating_errors(message, image):
            return await fetch_source(source, self._policy, self._fetch)

    async def _fetch(self, url: str, policy: MediaPolicy) -> bytes:
        if url in self._kept:
            self._kept.move_to_end(url)
            return self._kept[url]
        running = self._running.get(url)
        if running is None:
            running = self._running[url] = _Running(asyncio.create_task(fetch(url, policy)))
        running.waiting += 1
        try:
            # Shielded: one request that is given up must not take the image from the others.
            content = await asyncio.shield(running.task)
        finally:
            running.waiting -= 1
            if not running.waiting:
                running.task.cancel()
                del self._running[url]
        self._keep(url, content)
        return content

    def _keep(self, url: str, content: bytes) -> None:
        if url in self._kept or len(content) > self._most:
            return
        self._kept[url] = content
        self._held += len(content)
        while self._held > self._most:
            self._held -= len(self._kept.popitem(last=False)[1])


@dataclass
class _Running:
    """An image that is being fetched, and how many requests wait for it."""

    task: asyncio.Task[bytes]
    waiting: int = 0
