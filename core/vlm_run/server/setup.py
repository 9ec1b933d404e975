"""The settings that all processes of a server share."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vlm_run.media import MediaPolicy

if TYPE_CHECKING:
    from vlm_run.adapter import Adapter


@dataclass(frozen=True, slots=True)
class Setup:
    """The settings of an API process; picklable, since there may be several processes.

    Attributes:
        adapter: The model.
        args: vLLM's server arguments.
        policy: Which images may be fetched, and how large they may be.
        renderers: Processes that prepare requests with images, over all API processes; None for a
            default by the number of CPU cores, 0 for none.
        shutdown_seconds: How long running requests may take to finish after SIGTERM.
        max_body_bytes: Largest request body.
        page: Whether the chat page is served at `/`.
        open_browser: Whether the page is opened in a browser once the server is ready.
    """

    adapter: Adapter
    args: Namespace
    policy: MediaPolicy
    renderers: int | None
    shutdown_seconds: float
    max_body_bytes: int
    page: bool = False
    open_browser: bool = False
