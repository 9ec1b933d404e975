"""`vlm-run serve`: from its options to the process's exit code."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from vlm_run.engine.vllm_plugin import DIES_WITH_PARENT
from vlm_run.explain.start_notes import context_note
from vlm_run.plugins.cpu_dtype import DTYPE
from vlm_run.server.api_process import serve_at
from vlm_run.server.arguments import server_arguments, take_media_policy
from vlm_run.server.listening import listen, warn_if_open
from vlm_run.server.multi_process import serve_in_several
from vlm_run.server.setup import Setup

if TYPE_CHECKING:
    from vlm_run.adapter import Adapter

_OPEN_FILES = 65535


def serve(
    adapter: Adapter,
    *,
    options: Mapping[str, Any] | None = None,
    flags: Sequence[str] = (),
    media: Mapping[str, Any] | None = None,
    renderers: int | None = None,
    shutdown_seconds: float = 30.0,
    max_body_bytes: int = 256 * 1024**2,
    page: bool = False,
    open_browser: bool = False,
) -> int:
    """Serve a model until SIGTERM, SIGINT or the engine's death.

    Args:
        adapter: The model.
        options: Options of vLLM's server under its own names; they override the plugin's.
        flags: vLLM's own command-line flags; they override everything else.
        media: Fields of `MediaPolicy`, except those for which vLLM has flags.
        renderers: Processes that prepare requests with images; None for a default by the number of
            CPU cores, 0 for none.
        shutdown_seconds: How long running requests may take to finish after SIGTERM.
        max_body_bytes: Largest request body.
        page: Whether the chat page is served at `/`.
        open_browser: Whether the page is opened in a browser once the server is ready.

    Returns:
        The process's exit code.

    Raises:
        EngineError: An option is unknown, the address is in use, or vLLM could not start.
    """
    # As vLLM's own command does, and as the renderer processes need.
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    os.environ[DIES_WITH_PARENT] = "1"
    _raise_open_files_limit()
    args = server_arguments(adapter, options or {}, flags)
    policy = take_media_policy(args, media or {})
    setup = Setup(
        adapter,
        args,
        policy,
        renderers,
        shutdown_seconds,
        max_body_bytes,
        page=page,
        open_browser=open_browser,
    )
    warn_if_open(args)
    if args.dtype == DTYPE and (note := adapter.dtype_note(**(options or {}))):
        typer.echo(f"note: {note}", err=True)
    sizes = {"max_model_len": args.max_model_len, "mm_processor_kwargs": args.mm_processor_kwargs}
    if note := context_note(adapter, **sizes):
        typer.echo(f"note: {note}", err=True)
    if (args.api_server_count or 1) > 1:
        return serve_in_several(setup)
    with contextlib.closing(listen(args)) as listener:
        try:
            return serve_at(listener, setup)
        finally:
            if args.uds:
                Path(args.uds).unlink(missing_ok=True)


def _raise_open_files_limit() -> None:
    """Raise this process's limit on open files; each client needs one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
