"""vlm-run's server as a deployment of Ray Serve, and `vlm-run serve --replicas`."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
import typer
from ray import serve as ray_serve
from ray.serve.config import AutoscalingConfig, RequestRouterConfig
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vlm_run.errors import EngineError, VlmRunError
from vlm_run.ray.cluster import (
    Share,
    check_nodes,
    check_room,
    joined,
    nodes,
    part_of_node,
    share_cores,
    share_of,
)
from vlm_run.ray.proxy import ENVIRONMENT
from vlm_run.registry import Registry
from vlm_run.server.tcp_socket import bind_tcp

if TYPE_CHECKING:
    from ray.serve import Application

    from vlm_run.adapter import Adapter
    from vlm_run.server.setup import Setup

APPLICATION = "vlm-run"
"""The application's name in Ray Serve."""
_ROUTER = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"
_WATCH_SECONDS = 0.5
_HEALTH_SECONDS = 5.0
# Requests that vLLM runs at a time by default; the others wait in its queue, not in Ray's.
_USUAL_MAX_NUM_SEQS = 128
_UNSUPPORTED = {
    "uds": "Ray Serve listens at --host and --port.",
    "enable_ssl_refresh": "Restart the server for new certificates.",
    "ssl_ca_certs": "Check clients' certificates in a reverse proxy.",
}


class ServerReplica:
    """The server's application around an engine of its own; one replica of the deployment.

    Args:
        setup: What to serve.
        share: The part of a node's cores that this replica has for renderers, from 0 to 1.
    """

    def __init__(self, setup: Setup, share: float) -> None:
        self._setup = setup
        self._share = share
        self._open = AsyncExitStack()
        self._engine: Any = None

    async def __serve_build_asgi_app__(self) -> ASGIApp:
        """Start the engine and build the application; Ray Serve calls this once."""
        # As vLLM's own command does, and as the renderer processes need.
        os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
        from vlm_run.engine.renderer_pool import default_pool_size
        from vlm_run.engine.vllm_plugin import DIES_WITH_PARENT
        from vlm_run.server.application import build, guarded
        from vlm_run.server.arguments import import_parsers
        from vlm_run.server.request_logs import name_requests_in_logs
        from vlm_run.server.serving_engine import running_engine

        os.environ[DIES_WITH_PARENT] = "1"
        share_cores(self._share)
        setup = self._setup
        import_parsers(setup.args)
        name_requests_in_logs()
        renderers = setup.renderers
        if renderers is None:
            renderers = int(default_pool_size() * self._share)
        running = running_engine(setup.adapter, setup.args, setup.policy, renderers, {})
        self._engine = await self._open.enter_async_context(running)
        self._watch = asyncio.create_task(_exit_when_dead(self._engine))
        return Named(guarded(await build(setup, self._engine), setup))

    async def check_health(self) -> None:
        """Raise if the engine is dead; Ray Serve calls this periodically."""
        from vlm_run.engine.vllm_internals import has_died

        if self._engine is None or has_died(self._engine):
            raise EngineError("the vLLM engine has died")

    async def __del__(self) -> None:
        """Stop the engine, after the last request of this replica."""
        if self._engine is not None:
            self._watch.cancel()
            await self._open.aclose()


async def _exit_when_dead(engine: Any) -> None:
    """End the process soon after its engine, so that Ray Serve replaces it before health checks fail."""
    from vlm_run.engine.vllm_internals import has_died

    while not has_died(engine):
        await asyncio.sleep(_WATCH_SECONDS)
    os._exit(1)


class Named:
    """Says in each answer which replica gave it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._name = ray_serve.get_replica_context().replica_id.unique_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-replica"] = self._name
            await send(message)

        await self._app(scope, receive, send_named)


def deployment(
    model: str | Path | Adapter,
    *,
    replicas: int = 1,
    min_replicas: int | None = None,
    max_replicas: int | None = None,
    options: Mapping[str, Any] | None = None,
    flags: Sequence[str] = (),
    media: Mapping[str, Any] | None = None,
    renderers: int | None = None,
    shutdown_seconds: float = 30.0,
    max_body_bytes: int = 256 * 1024**2,
    share: Share | None = None,
) -> Application:
    """An application for Ray Serve that serves a model as `vlm-run serve` does.

    >>> serve.run(vlm_run.ray.deployment("qwen2_5-vl-7b-instruct", replicas=2))  # doctest: +SKIP

    Its answers say in `X-Replica` which replica gave them. Requests with the same `X-Session-Id` go to
    the same replica; `vlm_run.ray.proxy` sets it by the request's first image.

    Args:
        model: A model type, repository or directory, or an adapter from `Registry.load`.
        replicas: Engines, each with the GPUs that the options name.
        min_replicas: With `max_replicas`, Ray Serve adds and removes replicas by their load.
        max_replicas: See `min_replicas`.
        options: Options of vLLM's server under its own names; they override the plugin's.
        flags: vLLM's own command-line flags; they override everything else.
        media: Fields of `MediaPolicy`, except those for which vLLM has flags.
        renderers: Processes per replica that prepare images; None for a share of the node's cores.
        shutdown_seconds: How long a replica that is removed may finish its requests.
        max_body_bytes: Largest request body.
        share: What a replica takes of its node; by default by the options.

    Raises:
        EngineError: vLLM does not know an option, or Ray Serve does not support it.
        VlmRunError: The model is unknown.
    """
    least = _least_replicas(replicas, min_replicas, max_replicas)
    from vlm_run.server.arguments import api_keys, server_arguments, take_media_policy
    from vlm_run.server.setup import Setup

    adapter = Registry.load(model) if isinstance(model, (str, Path)) else model
    args = server_arguments(adapter, options or {}, flags)
    for name, advice in _UNSUPPORTED.items():
        if getattr(args, name, None):
            raise EngineError(f"--{name.replace('_', '-')} cannot be used with several replicas", hint=advice)
    if (args.api_server_count or 1) > 1:
        raise EngineError("--api-server-count cannot be used with several replicas", hint="Add replicas.")
    # Replicas do not have this process's environment.
    args.api_key = api_keys(args) or None
    policy = take_media_policy(args, media or {})
    setup = Setup(adapter, args, policy, renderers, shutdown_seconds, max_body_bytes)
    share = share or Share(gpus=share_of(vars(args), replicas, ()).gpus)
    at_once = args.max_num_seqs or _USUAL_MAX_NUM_SEQS
    scaling: dict[str, Any] = {"num_replicas": replicas}
    if max_replicas is not None:
        bounds = {"min_replicas": least, "max_replicas": max_replicas}
        scaling = {"autoscaling_config": AutoscalingConfig(target_ongoing_requests=at_once, **bounds)}
    configured = ray_serve.deployment(
        ray_serve.ingress()(ServerReplica),
        name=args.served_model_name[0],
        ray_actor_options=share.options(),
        **deployment_options(at_once, shutdown_seconds),
        **scaling,
    )
    return configured.bind(setup, part_of_node(share, nodes() if ray.is_initialized() else ()))


def _least_replicas(replicas: int, min_replicas: int | None, max_replicas: int | None) -> int:
    if max_replicas is None:
        if min_replicas is not None:
            raise VlmRunError("--min-replicas needs --max-replicas", hint="Give both, or --replicas.")
        return replicas
    least = 1 if min_replicas is None else min_replicas
    if least > max_replicas:
        raise VlmRunError(f"--min-replicas {least} is more than --max-replicas {max_replicas}")
    return least


def deployment_options(at_once: int, shutdown_seconds: float) -> dict[str, Any]:
    """The options of the deployment that do not depend on the model.

    Args:
        at_once: Requests that the engine runs at a time; as many again wait in its queue.
        shutdown_seconds: How long a replica that is removed may finish its requests.
    """
    return {
        "max_ongoing_requests": 2 * at_once,
        "health_check_period_s": _HEALTH_SECONDS,
        "graceful_shutdown_timeout_s": shutdown_seconds,
        "graceful_shutdown_wait_loop_s": 0.5,
        "request_router_config": RequestRouterConfig(request_router_class=_ROUTER),
    }


def serve(
    adapter: Adapter,
    *,
    replicas: int,
    min_replicas: int | None = None,
    max_replicas: int | None = None,
    address: str | None = None,
    verbose: bool = False,
    options: Mapping[str, Any] | None = None,
    flags: Sequence[str] = (),
    **more: Any,
) -> int:
    """Serve with several replicas until SIGTERM or SIGINT; SIGHUP replaces them one after the other.

    Args:
        adapter: The model.
        replicas: Engines.
        min_replicas: See `deployment`.
        max_replicas: See `deployment`.
        address: Of a Ray cluster; None starts one on this machine.
        verbose: Whether what replicas print is shown here.
        options: Options of vLLM's server under its own names; they override the plugin's.
        flags: vLLM's own command-line flags; they override everything else.
        more: As for `deployment`.

    Returns:
        The process's exit code.

    Raises:
        VlmRunError: An option is unknown, the cluster cannot be joined or lacks something, the address
            is in use, or the replicas could not start.
    """
    from vlm_run.server.arguments import server_arguments
    from vlm_run.server.listening import local_url, ready_message, warn_if_open

    args = server_arguments(adapter, options or {}, flags)
    warn_if_open(args)
    if not verbose:
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
    with joined(address, log_to_driver=verbose):
        cluster = nodes()
        least = _least_replicas(replicas, min_replicas, max_replicas)
        share = share_of(vars(args), max(least, max_replicas or 0), cluster)
        check_room(share, least, cluster)
        check_nodes(share, cluster, [args.model] if os.path.exists(args.model) else [])
        found = ray_serve.status().proxies
        host, port = start_proxies(args) if not found else _keep_proxies(args)

        deploy = partial(
            _deploy,
            adapter,
            replicas=replicas,
            min_replicas=min_replicas,
            max_replicas=max_replicas,
            options=options,
            flags=flags,
            share=share,
            **more,
        )
        with _signals() as wait:
            try:
                deploy()
                typer.echo(ready_message(local_url(host, port, args), args), err=True)
                while wait() == signal.SIGHUP:
                    typer.echo("replacing the replicas", err=True)
                    deploy()
                    typer.echo("the replicas are replaced", err=True)
                typer.echo("stopping: running requests may finish, new ones are refused", err=True)
            finally:
                ray_serve.delete(APPLICATION)
                if not found and not ray_serve.status().applications:
                    ray_serve.shutdown()
    return 0


def _deploy(adapter: Adapter, **options: Any) -> None:
    """Start the replicas, or replace those that run one after the other. See `deployment`."""
    application = deployment(adapter, **options)
    try:
        ray_serve.run(application, name=APPLICATION)
    except RuntimeError as error:
        raise EngineError(f"the replicas could not start: {_failure(error)}") from None


def _keep_proxies(args: Any) -> tuple[str, int]:
    typer.secho(
        "note: Ray Serve already runs on this cluster and keeps its address. Image affinity and "
        "Retry-After need a variable in the environment of its proxies; see docs/ray.md.",
        fg="yellow",
        err=True,
    )
    return args.host or "0.0.0.0", args.port


def start_proxies(args: Any) -> tuple[str, int]:
    """Start Ray Serve with its proxies at the server's address."""
    host, port = args.host or "0.0.0.0", args.port
    with bind_tcp(host, port) as listener:
        port = listener.getsockname()[1]
    certificate = {"ssl_keyfile": args.ssl_keyfile, "ssl_certfile": args.ssl_certfile}
    ray_serve.start(
        proxy_location="EveryNode",
        http_options={"host": host, "port": port, **{key: each for key, each in certificate.items() if each}},
        controller_options={"runtime_env": {"env_vars": ENVIRONMENT}},
    )
    return host, port


def _failure(error: RuntimeError) -> str:
    """The last line of a replica's error, if Ray Serve reports one."""
    found = ray_serve.status().applications.get(APPLICATION)
    messages = [each.message for each in found.deployments.values() if each.message] if found else []
    lines = [line.strip() for line in (messages[0] if messages else str(error)).splitlines() if line.strip()]
    return re.sub(r"^[\w.]+Error: ", "", lines[-1]).rstrip(".") if lines else "no reason is known"


@contextmanager
def _signals() -> Any:
    """A function that waits for SIGTERM, SIGINT or SIGHUP and returns which came."""
    came: list[int] = []
    woken = threading.Event()

    def note(number: int, _: Any) -> None:
        came.append(number)
        woken.set()

    before = {each: signal.signal(each, note) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}

    def wait() -> int:
        woken.wait()
        woken.clear()
        return came.pop()

    yielded: Callable[[], int] = wait
    try:
        yield yielded
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
