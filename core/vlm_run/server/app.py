"""The application: vLLM's own, with vlm-run's endpoints, errors and middleware."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from vlm_run.adapter import Adapter
from vlm_run.engine import vllm_seams
from vlm_run.engine.vllm_internals import keep_server_of_dead_engine, locate
from vlm_run.errors import VlmRunError
from vlm_run.server import adapter_info, chat
from vlm_run.server.arguments import api_keys
from vlm_run.server.engine import ServingEngine
from vlm_run.server.errors import Refusal, answer_error, answer_http_error, answer_refusal
from vlm_run.server.middleware import BodyLimit, Keys, RequestIds


async def build(adapter: Adapter, engine: ServingEngine, args: Namespace) -> FastAPI:
    """The application for a running engine.

    Args:
        adapter: The model.
        engine: The engine.
        args: vLLM's server arguments.
    """
    tasks = await engine.get_supported_tasks()
    app: FastAPI = locate(vllm_seams.BUILD_APP)(args, tasks, engine.model_config)
    await locate(vllm_seams.INIT_APP_STATE)(engine, app.state, args, tasks)
    app.state.vlm_run = adapter
    keep_server_of_dead_engine(app)  # until `vlm_run.server.serve` has noticed it and ends the server
    _put_first(app, chat.router, adapter_info.router)
    app.add_exception_handler(VlmRunError, answer_error)
    app.add_exception_handler(Refusal, answer_refusal)
    app.add_exception_handler(HTTPException, answer_http_error)
    if app.middleware_stack is not None:  # vLLM's SageMaker support has built it already
        app.middleware_stack = app.build_middleware_stack()
    return app


def guarded(app: ASGIApp, args: Namespace, *, max_body_bytes: int) -> ASGIApp:
    """The application behind request ids, the keys in force, and a limit on one body's size."""
    app = BodyLimit(app, max_body_bytes)
    if keys := api_keys(args):
        app = Keys(app, keys)
    return RequestIds(app)


def _put_first(app: FastAPI, *routers: APIRouter) -> None:
    """Let routers' endpoints go before vLLM's of the same paths, in the schema too."""
    before = len(app.router.routes)
    for router in routers:
        app.include_router(router)
    own = app.router.routes[before:]
    app.router.routes[:] = [*own, *app.router.routes[:before]]

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            # Here the last of the same path wins.
            routes = [*app.router.routes[len(own) :], *own]
            app.openapi_schema = get_openapi(title="vlm-run", version=app.version, routes=routes)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
