"""`POST /v1/adapter/media`: what the chat page shows of an image or a video before it is sent."""

from __future__ import annotations

import asyncio
import base64
import io
from typing import Any

from fastapi import FastAPI, Request
from PIL import Image
from pydantic import BaseModel, Field

from vlm_run.adapter import Adapter
from vlm_run.errors import MediaError
from vlm_run.explain.video_costs import one_pixel, video_cost
from vlm_run.media import MediaPolicy
from vlm_run.media.load import encoded, fetch_source, for_videos, load_image_async, locating_errors
from vlm_run.media.poster import Poster
from vlm_run.media.video import video_container
from vlm_run.server.served_model import ServedModel
from vlm_run.video import FrameSelection, load_clip

_THUMBNAIL_SIDE = 512
_VIDEO_URI = "data:video/"


class Media(BaseModel):
    """An image or a video, and which frames of a video are wanted."""

    url: str = Field(pattern="^([hH][tT][tT][pP][sS]?://|[dD][aA][tT][aA]:)")
    fps: float | None = Field(default=None, gt=0)
    max_frames: int | None = Field(default=None, ge=1)
    max_pixels: int | None = Field(default=None, ge=1)


def add_media_endpoint(app: FastAPI) -> None:
    """Add the endpoint, which only the page needs."""
    # In this process, which also streams answers: one video at a time.
    app.state.decoding_video = asyncio.Lock()
    app.post("/v1/adapter/media")(describe_media)


async def describe_media(media: Media, request: Request) -> dict[str, Any]:
    """Size and thumbnail of an image or a video, and the frames and tokens of a video.

    The browser fetches nothing from other servers, by the page's own policy, and may not know the format.
    What is fetched and decoded here is what a question could name, under the same `MediaPolicy`; its bytes
    are not handed on.
    """
    served: ServedModel = request.app.state.served
    policy, takes_videos = served.policy, served.adapter.spec.video is not None
    source = await fetch_source(media.url, for_videos(policy) if takes_videos else policy)
    if isinstance(source, str):
        source = await asyncio.to_thread(encoded, source, for_videos(policy))
    given_as_video = media.url[: len(_VIDEO_URI)].lower() == _VIDEO_URI
    if not (takes_videos and isinstance(source, bytes) and (given_as_video or video_container(source))):
        image = await load_image_async(source, policy)
        return {
            "kind": "image",
            "width": image.width,
            "height": image.height,
            "thumbnail": await asyncio.to_thread(_thumbnail, image),
        }
    if served.max_videos == 0:
        raise MediaError("the server takes no videos", hint="Start it with --max-videos 1.")
    selection = FrameSelection(fps=media.fps, max_frames=media.max_frames, max_pixels=media.max_pixels)
    async with request.app.state.decoding_video:
        return await asyncio.to_thread(_describe_video, served.adapter, source, selection, policy)


def _describe_video(
    adapter: Adapter, content: bytes, selection: FrameSelection, policy: MediaPolicy
) -> dict[str, Any]:
    poster = Poster()
    with locating_errors(None):
        clip = load_clip(adapter.video_facts(selection), content, selection, policy, one_pixel, poster.see)
        cost = video_cost(adapter, clip, selection, policy)
    assert poster.image is not None, "a video has a frame"
    return {
        "kind": "video",
        "width": cost.width,
        "height": cost.height,
        "seconds": clip.duration,
        "thumbnail": _thumbnail(poster.image),
        "frames": len(cost.times),
        "resized": list(cost.resized),
        "tokens": cost.tokens,
    }


def _thumbnail(image: Image.Image) -> str:
    smaller = image.copy()
    smaller.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    smaller.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
