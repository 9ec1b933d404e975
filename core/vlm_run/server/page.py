"""The chat page at `/`: static files of this package, which the browser runs under a strict policy."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from PIL import Image
from pydantic import BaseModel, Field
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from vlm_run.media import MediaPolicy
from vlm_run.media.load import load_image_async

DIRECTORY = Path(__file__).with_name("page")
_STATIC = "/page"
_THUMBNAIL_SIDE = 512
# The page may load from and connect to this server only. Nothing inline runs, whatever a model answers.
_HEADERS = {
    "Content-Security-Policy": "; ".join(
        [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' blob: data:",
            "connect-src 'self'",
            "font-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    # The browser asks each time whether a file has changed: an upgrade shows at the next reload.
    "Cache-Control": "no-cache",
}


def add_page(app: FastAPI) -> None:
    """Serve the document at `/`, its other files below `/page/`, and the endpoint that it alone uses."""

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(DIRECTORY / "index.html", headers=_HEADERS)

    app.mount(_STATIC, _Files(directory=DIRECTORY))
    app.post("/v1/adapter/image")(remote_image)


class RemoteImage(BaseModel):
    """An image by its URL."""

    url: str = Field(pattern="^[hH][tT][tT][pP][sS]?://", max_length=8192)


async def remote_image(image: RemoteImage, request: Request) -> dict[str, Any]:
    """Width and height in pixels of an image that the server fetches, and a thumbnail as a data URI.

    The page's own policy lets the browser fetch nothing from elsewhere. What is fetched is an image
    that a question could name, under the same `MediaPolicy`; its bytes are not handed on.
    """
    policy: MediaPolicy = request.app.state.media_policy
    loaded = await load_image_async(image.url, policy)
    return {"width": loaded.width, "height": loaded.height, "thumbnail": _thumbnail(loaded)}


def _thumbnail(image: Image.Image) -> str:
    smaller = image.copy()
    smaller.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    smaller.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def page_paths() -> frozenset[str]:
    """The paths of all files of the page, which are served without a key."""
    files = (path.relative_to(DIRECTORY).as_posix() for path in DIRECTORY.rglob("*") if path.is_file())
    return frozenset({"/", *(f"{_STATIC}/{file}" for file in files)})


class _Files(StaticFiles):
    """Static files with the page's headers."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(_HEADERS)
        return response
