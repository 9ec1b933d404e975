"""The ASGI application: vLLM's, with vlm-run's endpoints, error responses and middleware."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp
from vllm.entrypoints.serve.utils.api_utils import validate_json_request

from vlm_run.engine import vllm_seams
from vlm_run.engine.vllm_internals import keep_server_of_dead_engine, locate
from vlm_run.errors import VlmRunError
from vlm_run.server import adapter_endpoint, chat_endpoint
from vlm_run.server.arguments import api_keys
from vlm_run.server.error_responses import (
    MALFORMED,
    Refusal,
    answer_error,
    answer_http_error,
    answer_refusal,
    answer_unexpected_type,
    answer_validation_error,
)
from vlm_run.server.middleware import BodyLimit, Keys, RequestIds
from vlm_run.server.page import add_page, page_paths
from vlm_run.server.request_body import check_json_body
from vlm_run.server.served_model import ServedModel
from vlm_run.server.serving_engine import ServingEngine

if TYPE_CHECKING:
    from vlm_run.server.setup import Setup


async def build(setup: Setup, engine: ServingEngine) -> FastAPI:
    """Build the application for a running engine."""
    args = setup.args
    tasks = await engine.get_supported_tasks()
    app: FastAPI = locate(vllm_seams.BUILD_APP)(args, tasks, engine.model_config)
    await locate(vllm_seams.INIT_APP_STATE)(engine, app.state, args, tasks)
    app.state.served = ServedModel.of_engine(setup.adapter, setup.policy, engine.model_config)
    keep_server_of_dead_engine(app)  # `api_process` ends it a little later
    app.dependency_overrides[validate_json_request] = check_json_body
    _put_first(app, chat_endpoint.router, adapter_endpoint.router)
    app.add_exception_handler(VlmRunError, answer_error)
    app.add_exception_handler(Refusal, answer_refusal)
    app.add_exception_handler(RequestValidationError, answer_validation_error)
    app.add_exception_handler(ValidationError, answer_validation_error)
    for error in MALFORMED:
        app.add_exception_handler(error, answer_unexpected_type)
    app.add_exception_handler(HTTPException, answer_http_error)
    if app.middleware_stack is not None:  # vLLM's SageMaker support has built it already
        app.middleware_stack = app.build_middleware_stack()
    if setup.page:
        add_page(app)
    return app


def guarded(app: ASGIApp, setup: Setup) -> ASGIApp:
    """Wrap the application in request ids, the check of API keys, and the limit on the body's size."""
    app = BodyLimit(app, setup.max_body_bytes)
    if keys := api_keys(setup.args):
        app = Keys(app, keys, page_paths() if setup.page else frozenset())
    return RequestIds(app)


def _put_first(app: FastAPI, *routers: APIRouter) -> None:
    """Give routers' endpoints precedence over vLLM's for the same paths, in the OpenAPI schema too."""
    before = len(app.router.routes)
    for router in routers:
        app.include_router(router)
    own = app.router.routes[before:]
    app.router.routes[:] = [*own, *app.router.routes[:before]]

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            # In the schema the last route for a path wins.
            routes = [*app.router.routes[len(own) :], *own]
            app.openapi_schema = get_openapi(title="vlm-run", version=app.version, routes=routes)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
