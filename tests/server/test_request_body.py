"""Every JSON body is checked before its endpoint reads it; the error names the field or the message."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient

from vlm_run.errors import VlmRunError
from vlm_run.server.error_responses import answer_error
from vlm_run.server.request_body import check_json_body


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    """An application with one endpoint that accepts any JSON."""
    app = FastAPI()
    app.add_exception_handler(VlmRunError, answer_error)

    @app.post("/", dependencies=[Depends(check_json_body)])
    async def endpoint(body: Any = None) -> str:
        return "read"

    with TestClient(app) as client:
        yield client


def error(client: TestClient, body: Any) -> dict[str, Any]:
    response = client.post(
        "/", content=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 400
    answer: dict[str, Any] = response.json()["error"]
    return answer


@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        ({"seed": 2**63}, "'seed' has an integer that does not fit in 64 bits", "seed"),
        ({"logit_bias": {"5": -(2**70)}}, "'logit_bias' has an integer", "logit_bias"),
        ({"temperature": float("nan")}, "'temperature' has a number that is not finite", "temperature"),
        ({"stop": ["x", "\ud83d"]}, "'stop' has half a character, the lone surrogate U+D83D", "stop"),
        ({"\udc00": 1}, "a field's name has ", None),
        ({"structured_outputs": "x"}, "'structured_outputs': should be an object", "structured_outputs"),
        ({"tools": {}}, "'tools': should be a list", "tools"),
        ({"messages": ["a", {"content": "\ud83d"}]}, "message 2: the message has half", "messages[1]"),
        ({"input": [{"content": [2**64]}]}, "message 1: the message has an integer", "messages[0]"),
        (["\ud83d"], "the body has half a character", None),
    ],
)  # fmt: skip
def test_the_error_names_the_place(client: TestClient, body: Any, message: str, param: str | None) -> None:
    said = error(client, body)
    assert said["message"].startswith(message)
    assert said["message"].isprintable()
    assert said["param"] == param


def test_nesting_has_a_limit(client: TestClient) -> None:
    nested: list[Any] = []
    for _ in range(150):
        nested = [nested]
    assert "'metadata' is nested more than 100 levels deep" in error(client, {"metadata": nested})["message"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"seed": -(2**63), "top_k": 2**63 - 1, "stop": "é😀", "stream_options": None, "logprobs": True},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]},
    ],
)
def test_what_an_endpoint_can_read_passes(client: TestClient, body: Any) -> None:
    assert client.post("/", json=body).json() == "read"
