"""Responses: an answer or the error of one request."""

from __future__ import annotations

import json

import pytest

from vlm_run import Response
from vlm_run.errors import MediaError
from vlm_run.response import Usage


def test_an_answer_raises_nothing() -> None:
    answer = Response(response="Four.")
    assert answer.raise_for_error() is answer


def test_a_failed_request_raises_its_own_error() -> None:
    error = MediaError("it is damaged", image_index=0)
    with pytest.raises(MediaError) as caught:
        Response(finish_reason="error", error=error).raise_for_error()
    assert caught.value is error


def test_an_answer_as_json_counts_its_tokens() -> None:
    answer = Response(
        response="Vier – four.",
        history=[["How many?", "Vier – four."]],
        usage=Usage(prompt_tokens=1200, image_tokens=(576, 576), completion_tokens=5),
        finish_reason="stop",
        seconds=1.23456789,
        first_token_seconds=0.5,
    )
    assert json.loads(json.dumps(answer.to_dict())) == {
        "response": "Vier – four.",
        "history": [["How many?", "Vier – four."]],
        "usage": {
            "prompt_tokens": 1200,
            "image_tokens": 1152,
            "image_tokens_each": [576, 576],
            "completion_tokens": 5,
            "total_tokens": 1205,
        },
        "finish_reason": "stop",
        "seconds": 1.2346,
        "first_token_seconds": 0.5,
    }


def test_a_failed_request_as_json_says_why() -> None:
    failed = Response(
        finish_reason="error", error=MediaError("it is damaged", message_index=0, image_index=1)
    )
    assert json.loads(json.dumps(failed.to_dict()))["error"] == {
        "type": "MediaError",
        "message": "message 1, image 2: it is damaged",
    }


def test_responses_share_no_history() -> None:
    first, second = Response(), Response()
    first.history.append(["Q", "A"])
    assert second.history == []
