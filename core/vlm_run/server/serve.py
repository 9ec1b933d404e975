"""Runs the server: from its socket to its exit code."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import ipaddress
import os
import resource
import signal
import socket
from argparse import Namespace
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import typer
import uvicorn
import uvloop
from uvicorn.config import LOGGING_CONFIG

from vlm_run.engine.versions import has_died, server_function
from vlm_run.engine.vllm_plugin import DIES_WITH_PARENT
from vlm_run.errors import EngineError
from vlm_run.media import MediaPolicy
from vlm_run.plugins.cpu_dtype import DTYPE
from vlm_run.server.arguments import api_keys, server_arguments, take_media_policy
from vlm_run.server.logs import access_log, logger, name_requests_in_logs

if TYPE_CHECKING:
    from vlm_run.adapter import Adapter

_OPEN_FILES = 65535
# How often the engine is looked at, and how long a dead one is shown in /health before the end.
_WATCH_SECONDS = 0.5
_DEATH_NOTICE_SECONDS = 3.0


def serve(
    adapter: Adapter,
    *,
    options: Mapping[str, Any] | None = None,
    flags: Sequence[str] = (),
    media: Mapping[str, Any] | None = None,
    renderers: int | None = None,
    shutdown_seconds: float = 30.0,
    max_body_bytes: int = 256 * 1024**2,
) -> int:
    """Serve a model until SIGTERM, SIGINT or the engine's death; the process's exit code.

    Args:
        adapter: The model.
        options: Options of vLLM's server in its own names, on top of the plugin's.
        flags: vLLM's own flags, on top of all.
        media: Fields of `MediaPolicy`, beside those for which vLLM has flags.
        renderers: Processes that prepare requests with images; None for as many as the machine's
            cores suggest, 0 for none.
        shutdown_seconds: How long running requests may take to finish after SIGTERM.
        max_body_bytes: Of one request.

    Raises:
        EngineError: An option is unknown, the address is taken, or vLLM could not start.
    """
    # As vLLM's own command does, and as the renderer processes need.
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    os.environ[DIES_WITH_PARENT] = "1"
    _allow_many_clients()
    args = server_arguments(adapter, options or {}, flags)
    policy = take_media_policy(args, media or {})
    setup = Setup(adapter, args, policy, renderers, shutdown_seconds, max_body_bytes)
    warn_if_open(args)
    if args.dtype == DTYPE and (note := adapter.dtype_note(**(options or {}))):
        typer.echo(f"note: {note}", err=True)
    if (args.api_server_count or 1) > 1:
        from vlm_run.server.processes import serve_in_several

        return serve_in_several(setup)
    with contextlib.closing(_listen(args)) as listener:
        try:
            return serve_at(listener, setup)
        finally:
            if args.uds:
                Path(args.uds).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Setup:
    """What a server is run with, in this process or in several."""

    adapter: Adapter
    args: Namespace
    policy: MediaPolicy
    renderers: int | None
    shutdown_seconds: float
    max_body_bytes: int


def serve_at(listener: socket.socket, setup: Setup, client: Mapping[str, Any] | None = None) -> int:
    """Serve at a bound socket, in this process; its exit code.

    Args:
        listener: The socket.
        setup: What to run.
        client: Where the engine is, if another process has started it for several; in vLLM's form.
    """
    name_requests_in_logs()
    # While vLLM starts, its loop is busy; then the server takes the signals over.
    signal.signal(signal.SIGTERM, _exit_on_signal)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(listener, setup, client or {}))


async def _serve(listener: socket.socket, setup: Setup, client: Mapping[str, Any]) -> int:
    from vlm_run.server.app import build, guarded
    from vlm_run.server.engine import running_engine

    args = setup.args
    async with running_engine(setup.adapter, args, setup.policy, setup.renderers, client) as engine:
        app = await build(setup.adapter, engine, args)
        # vLLM would end the server at once where a request meets a dead engine; `_watch` does it later.
        app.state.server = SimpleNamespace(should_exit=False)
        config = _uvicorn_config(
            guarded(app, args, max_body_bytes=setup.max_body_bytes), args, setup.shutdown_seconds
        )
        says = "" if client.get("client_index") else ready_message(address_of(args, listener), args)
        server = _Server(config, says)
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, server.stop)
        watch = asyncio.create_task(_watch(engine, server))
        certificates = _refresher(config) if args.enable_ssl_refresh and config.ssl else None
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


def _allow_many_clients() -> None:
    """Raise this process's limit on open files, of which each client is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


class _Server(uvicorn.Server):
    """uvicorn's server, which says when it listens, and leaves signals to `_serve`."""

    def __init__(self, config: uvicorn.Config, says: str) -> None:
        super().__init__(config)
        self._says = says

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        # uvicorn's own would raise the signal again at the end, and the exit code would not be 0.
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self._says:
            typer.echo(self._says, err=True)

    def stop(self) -> None:
        """Accept nothing more, finish what runs, end; at the second call, end at once."""
        if self.should_exit:
            self.force_exit = True
            return
        logger.info("stopping: running requests may finish, new ones are refused")
        self.should_exit = True


async def _watch(engine: Any, server: uvicorn.Server) -> None:
    """End the server once the engine is dead, a little later, so that `/health` can say so."""
    while not has_died(engine):
        await asyncio.sleep(_WATCH_SECONDS)
    logger.error("the vLLM engine has died; /health says so for %g s", _DEATH_NOTICE_SECONDS)
    await asyncio.sleep(_DEATH_NOTICE_SECONDS)
    server.should_exit = True


def _exit_on_signal(*_: Any) -> None:
    raise SystemExit(0)


def _listen(args: Namespace) -> socket.socket:
    """The socket, bound before the engine starts, so that a taken address is known at once."""
    try:
        if args.uds:
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listener.bind(args.uds)
            return listener
        ((family, _, _, _, address), *_) = socket.getaddrinfo(
            args.host or "0.0.0.0", args.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        return listener
    except OSError as error:
        where = args.uds or f"{args.host or '0.0.0.0'}:{args.port}"
        raise EngineError(
            f"cannot listen at {where}: {error.strerror or error}", hint="Choose another --host or --port."
        ) from error


def address_of(args: Namespace, listener: socket.socket) -> str:
    """The URL under which the server is reached from this machine."""
    if args.uds:
        return f"unix:{args.uds}"
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"
    scheme = "https" if args.ssl_keyfile and args.ssl_certfile else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def ready_message(address: str, args: Namespace) -> str:
    """What is served where, and a command that asks it about a picture."""
    name = args.served_model_name[0]
    body = (
        f'{{"model": "{name}", "messages": [{{"role": "user", "content": "What is in the picture?"}}], '
        f'"images": ["{_PICTURE}"]}}'
    )
    where = f"--unix-socket {args.uds} http://localhost" if args.uds else address
    key = "-H 'Authorization: Bearer KEY' " if api_keys(args) else ""
    return (
        f"{name} is served at {address}/v1\n"
        f"  curl {where}/v1/chat/completions -H 'Content-Type: application/json' {key}-d '{body}'"
    )


# A red square of 64 × 64 pixels.
_PICTURE = (
    "iVBORw0KGgoAAAANSUhEUgAAAEAAAABAAQMAAACQp+OdAAAAA1BMVEXSHhjuWnsNAAAAD0lEQVR42mNgGAWjgHwA"
    "AAJAAAHgTR1EAAAAAElFTkSuQmCC"
)


def warn_if_open(args: Namespace) -> None:
    """Warn of an address that others can reach where no key is asked for."""
    if args.uds or api_keys(args) or _is_loopback(args.host):
        return
    typer.secho(
        f"WARNING: listening at {args.host or '0.0.0.0'} without --api-key: everyone who can reach this "
        "machine can use the model.\n         Give --api-key, or --host 127.0.0.1.",
        fg="yellow",
        bold=True,
        err=True,
    )


def _is_loopback(host: str | None) -> bool:
    try:
        return ipaddress.ip_address(host or "0.0.0.0").is_loopback
    except ValueError:
        return host == "localhost"


def _refresher(config: uvicorn.Config) -> Any:
    """What reads certificates again when their files change."""
    return server_function("SSLCertRefresher")(
        ssl_context=config.ssl,
        key_path=config.ssl_keyfile,
        cert_path=config.ssl_certfile,
        ca_path=config.ssl_ca_certs,
    )


def _uvicorn_config(app: Any, args: Namespace, shutdown_seconds: float) -> uvicorn.Config:
    from vllm import envs

    log_config = server_function("get_uvicorn_log_config")(args)
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
