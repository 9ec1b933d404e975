"""A request's mistakes are answered with one line and a 4xx, whatever they are and at every endpoint."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from .conftest import MODEL, QUESTION, Server, base64_of, draw
from .mutation import BODIES, mutated_bodies

HALF_AN_EMOJI = "\ud83d"


def refusal(server: Server, path: str, body: Any) -> str:
    """The message of a refused request, of one line in OpenAI's form or Anthropic's."""
    response = server.http.post(
        path, content=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 400, response.text
    message: str = response.json()["error"]["message"]
    assert message.isprintable()
    return message


def test_no_mutated_request_gets_a_server_error(server: Server) -> None:
    def status(case: tuple[str, bytes]) -> tuple[str, bytes, httpx.Response]:
        path, body = case
        headers = {"Content-Type": "application/json"}
        return path, body, server.http.post(path, content=body, headers=headers)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(status, mutated_bodies(2000, seed=5)))
    failed = [
        (path, response.text[:200], body[-300:])
        for path, body, response in answers
        if response.status_code >= 500
    ]
    assert failed == []
    statuses = Counter((path, response.status_code) for path, _, response in answers)
    assert all(statuses[path, 400] > 30 for path in BODIES), statuses
    errors = [response.text for _, _, response in answers if response.status_code == 400]
    assert [text for text in errors if not json.loads(text)["error"]["message"].isprintable()] == []
    assert server.ask(images=[base64_of(draw(2))]) == "2"


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/v1/chat/completions", {"messages": "x"}, "'messages': should be a valid list"),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": [{"type": {}}]}]},
            "message 1: part 1 has no type. Known: text, image_url, image, video_url, video.",
        ),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": [{"type": "sound"}]}]},
            "message 1: part 1 has the unknown type 'sound'. Known: text, image_url, image, video_url, "
            "video.",
        ),
        (
            "/v1/responses",
            {"input": [{"role": "user", "content": [{"type": "input_text", "text": 3}]}]},
            "'input[0].content[0].text': should be a valid string",
        ),
        (
            "/v1/messages",
            {"max_tokens": 1, "messages": [{"role": "user", "content": [{"type": "text", "text": 3}]}]},
            "'messages[0].content[0].text': should be a valid string",
        ),
        ("/v1/completions", {"prompt": "x", "stop": [1]}, "'stop[0]': should be a valid string"),
        ("/tokenize", {"messages": 5}, "'messages': should be a valid list"),
    ],
)
def test_a_malformed_request_is_answered_with_the_field_at_fault(
    server: Server, path: str, body: dict[str, Any], message: str
) -> None:
    assert refusal(server, path, {"model": MODEL, **body}) == message


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/tokenize"])
def test_the_message_with_half_an_emoji_is_named(server: Server, path: str) -> None:
    turns = [{"role": "user", "content": text} for text in ("Hi", HALF_AN_EMOJI)]
    turns.insert(1, {"role": "assistant", "content": "Hello"})
    message = refusal(server, path, {"model": MODEL, "max_tokens": 1, "messages": turns})
    assert message.startswith("message 3: ")
    assert "lone surrogate U+D83D" in message


@pytest.mark.parametrize(
    "field",
    [
        {"seed": 2**64},
        {"top_k": 2**70},
        {"n": 2**40},
        {"stop": HALF_AN_EMOJI},
        {"stop": ["x", HALF_AN_EMOJI]},
        {"bad_words": [HALF_AN_EMOJI]},
        {"temperature": float("nan")},
        {"repetition_penalty": float("inf")},
        {"min_tokens": 2**62},
        {"logit_bias": {"5": 2**70}},
        {"user": HALF_AN_EMOJI},
        {"structured_outputs": {"regex": HALF_AN_EMOJI}},
        {"tools": [{"type": "function", "function": {"name": HALF_AN_EMOJI}}]},
    ],
)
def test_a_value_that_the_engine_cannot_take_is_refused_and_named(
    server: Server, field: dict[str, Any]
) -> None:
    turns = [{"role": "user", "content": QUESTION}]
    (name,) = field
    message = refusal(
        server, "/v1/chat/completions", {"model": MODEL, "max_tokens": 1, "messages": turns, **field}
    )
    assert name in message


def test_a_deeply_nested_body_is_refused(server: Server) -> None:
    for depth in (200, 100_000):
        body = b'{"messages": [], "metadata": ' + b"[" * depth + b"]" * depth + b"}"
        response = server.http.post(
            "/v1/chat/completions", content=body, headers={"Content-Type": "application/json"}
        )
        assert response.status_code == 400


def test_assistant_turns_without_text_and_with_other_parts_are_accepted(server: Server) -> None:
    said: list[dict[str, Any]] = [
        {"content": None},
        {},
        {"content": [{"type": "refusal", "refusal": "No."}]},
        {"content": [{"type": "thinking", "thinking": "Red, red."}, {"type": "text", "text": "2"}]},
    ]
    for each in said:
        turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", **each}]
        assert server.ask(messages=[*turns, {"role": "user", "content": "Who are you?"}])
