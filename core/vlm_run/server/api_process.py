"""One API process: the engine's client, the application and uvicorn, until a signal or the engine's death."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import signal
import socket
from argparse import Namespace
from collections.abc import Callable, Generator, Mapping
from functools import partial
from typing import Any

import typer
import uvicorn
import uvloop
from uvicorn.config import LOGGING_CONFIG

from vlm_run.engine import vllm_seams
from vlm_run.engine.vllm_internals import has_died, locate
from vlm_run.server.listening import address_of, open_in_browser, ready_message
from vlm_run.server.request_logs import access_log, logger, name_requests_in_logs
from vlm_run.server.setup import Setup

# How often the engine's state is checked, and how long /health reports a dead engine before the server ends.
_WATCH_SECONDS = 0.5
_DEATH_NOTICE_SECONDS = 3.0


def serve_at(listener: socket.socket, setup: Setup, client: Mapping[str, Any] | None = None) -> int:
    """Serve at a bound socket, in this process.

    Args:
        listener: The socket.
        setup: What to serve.
        client: How to reach the engine if another process has started it, in vLLM's form.

    Returns:
        The process's exit code.
    """
    name_requests_in_logs()
    # While vLLM starts, the event loop is blocked; later the server handles signals on the loop.
    signal.signal(signal.SIGTERM, _exit_on_signal)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(listener, setup, client or {}))


async def _serve(listener: socket.socket, setup: Setup, client: Mapping[str, Any]) -> int:
    from vlm_run.server.application import build, guarded
    from vlm_run.server.serving_engine import running_engine

    args = setup.args
    async with running_engine(setup.adapter, args, setup.policy, setup.renderers, client) as engine:
        app = guarded(await build(setup, engine), setup)
        config = _uvicorn_config(app, args, setup.shutdown_seconds)
        is_first = not client.get("client_index")
        announce = partial(_announce, setup, address_of(args, listener)) if is_first else None
        server = _Server(config, announce)
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, server.stop)
        watch = asyncio.create_task(_stop_when_dead(engine, server))
        certificates = _certificate_refresher(config) if args.enable_ssl_refresh and config.ssl else None
        try:
            await server.serve(sockets=[listener])
        finally:
            watch.cancel()
            if certificates is not None:
                certificates.stop()
        died = has_died(engine)
    if died:
        logger.error("the vLLM engine has died; the server ends with exit code 1")
    return 1 if died else 0


def _announce(setup: Setup, address: str) -> None:
    """Print where the server listens; open the chat page if that was asked for."""
    typer.echo(ready_message(address, setup.args), err=True)
    if not setup.page:
        return
    opened = setup.open_browser and open_in_browser(f"{address}/")
    typer.echo(f"The chat page is at {address}/" + (", opened in your browser." if opened else ""), err=True)


class _Server(uvicorn.Server):
    """uvicorn's server, which calls `on_ready` once it listens and leaves signals to `_serve`."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None] | None) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        # uvicorn's own would raise the signal again at the end, and the exit code would not be 0.
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self._on_ready is not None:
            self._on_ready()

    def stop(self) -> None:
        """Refuse new requests, finish those that run, and end; on the second call end at once."""
        if self.should_exit:
            self.force_exit = True
            return
        logger.info("stopping: running requests may finish, new ones are refused")
        self.should_exit = True


async def _stop_when_dead(engine: Any, server: uvicorn.Server) -> None:
    """Stop the server a little after the engine has died, so that `/health` can report it."""
    while not has_died(engine):
        await asyncio.sleep(_WATCH_SECONDS)
    logger.error("the vLLM engine has died; /health reports it for %g s", _DEATH_NOTICE_SECONDS)
    await asyncio.sleep(_DEATH_NOTICE_SECONDS)
    server.should_exit = True


def _exit_on_signal(*_: Any) -> None:
    raise SystemExit(0)


def _certificate_refresher(config: uvicorn.Config) -> Any:
    """vLLM's object that reloads the certificates when their files change."""
    return locate(vllm_seams.SSL_CERT_REFRESHER)(
        ssl_context=config.ssl,
        key_path=config.ssl_keyfile,
        cert_path=config.ssl_certfile,
        ca_path=config.ssl_ca_certs,
    )


def _uvicorn_config(app: Any, args: Namespace, shutdown_seconds: float) -> uvicorn.Config:
    from vllm import envs

    log_config = locate(vllm_seams.UVICORN_LOG_CONFIG)(args)
    config = uvicorn.Config(
        app,
        host=args.host,
        port=args.port,
        log_config=access_log(copy.deepcopy(LOGGING_CONFIG)) if log_config is None else log_config,
        log_level=args.uvicorn_log_level,
        access_log=not args.disable_uvicorn_access_log,
        timeout_keep_alive=envs.VLLM_HTTP_TIMEOUT_KEEP_ALIVE,
        timeout_graceful_shutdown=round(shutdown_seconds),
        ssl_keyfile=args.ssl_keyfile,
        ssl_certfile=args.ssl_certfile,
        ssl_ca_certs=args.ssl_ca_certs,
        ssl_cert_reqs=args.ssl_cert_reqs,
        ssl_ciphers=args.ssl_ciphers,
        h11_max_incomplete_event_size=args.h11_max_incomplete_event_size,
    )
    config.load()
    return config
