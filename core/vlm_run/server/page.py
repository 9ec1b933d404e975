"""The chat page at `/`: static files of this package, which the browser runs under a strict policy."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from vlm_run.server.media_endpoint import add_media_endpoint

DIRECTORY = Path(__file__).with_name("page")
_STATIC = "/page"
# The page may load from and connect to this server only. Nothing inline runs, whatever a model answers.
_HEADERS = {
    "Content-Security-Policy": "; ".join(
        [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' blob: data:",
            "media-src blob:",
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
    add_media_endpoint(app)


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
