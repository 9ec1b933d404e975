"""The options of commands that show videos to a model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

import typer

from vlm_run.cli.options import LoadOptions
from vlm_run.errors import VlmRunError

VIDEOS = "Videos"


@dataclass(frozen=True, slots=True)
class VideoOptions:
    """Videos of a question, and which of their frames the model sees.

    Attributes:
        video: Their sources.
        fps: Frames per second of the video.
        num_frames: Number of frames.
        max_frames: Maximum number of frames.
        start: Where to begin, in seconds.
        end: Where to end, in seconds.
    """

    video: Annotated[
        list[str] | None,
        typer.Option("--video", help="URL, path, base64 or data URI; repeatable.", rich_help_panel=VIDEOS),
    ] = None
    fps: Annotated[
        float | None, typer.Option(help="Frames per second that the model sees.", rich_help_panel=VIDEOS)
    ] = None
    num_frames: Annotated[
        int | None, typer.Option(help="Number of frames, evenly spaced.", rich_help_panel=VIDEOS)
    ] = None
    max_frames: Annotated[
        int | None, typer.Option(help="Maximum number of frames.", rich_help_panel=VIDEOS)
    ] = None
    start: Annotated[
        float | None, typer.Option(help="Begin at this time, in seconds.", rich_help_panel=VIDEOS)
    ] = None
    end: Annotated[
        float | None, typer.Option(help="End at this time, in seconds.", rich_help_panel=VIDEOS)
    ] = None

    def request_fields(self) -> dict[str, Any]:
        """Return the fields of a request that has these videos; none without videos.

        Raises:
            VlmRunError: Frames are chosen, but no video is given.
        """
        from vlm_run.prompts.frames import FRAME_FIELDS

        given = {name: value for name in FRAME_FIELDS if (value := getattr(self, name)) is not None}
        if self.video:
            return {"videos": list(self.video), **given}
        if given:
            option = f"--{next(iter(given)).replace('_', '-')}"
            raise VlmRunError(f"{option} is given without --video", hint="Give a video, or leave it out.")
        return {}

    def allowed_by(self, load: LoadOptions) -> LoadOptions:
        """Return the options with which the engine takes these videos, unless --max-videos is given."""
        if load.max_videos is not None or not self.video:
            return load
        return replace(load, max_videos=len(self.video))
