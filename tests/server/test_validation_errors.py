"""What pydantic finds wrong with a request is said on one line, with the field at fault."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter, ValidationError
from vllm.entrypoints.anthropic.protocol import AnthropicMessagesRequest
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.entrypoints.serve.tokenize.protocol import TokenizeRequest

from vlm_run.server.validation_errors import describe


def description(kind: Any, body: Any) -> tuple[str, str | None]:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python(body)
    return describe(caught.value.errors())


def responses(content: Any) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": content}]}


@pytest.mark.parametrize(
    ("kind", "body", "message"),
    [
        (ChatCompletionRequest, {"messages": "x"}, "'messages': should be a valid list"),
        (ChatCompletionRequest, {}, "'messages': field required"),
        (
            CompletionRequest,
            {"prompt": {"a": 1}},
            "'prompt': should be a valid list or a valid string",
        ),
        (CompletionRequest, {"prompt": "x", "stop": [1]}, "'stop[0]': should be a valid string"),
        (TokenizeRequest, {"messages": 5}, "'messages': should be a valid list"),
        (
            AnthropicMessagesRequest,
            {"max_tokens": 1, "model": "m", "messages": [{"role": "user", "content": [{"type": "text"}, 5]}]},
            "'messages[0].content[1]': should be a valid dictionary or instance of AnthropicContentBlock",
        ),
        (
            ResponsesRequest,
            responses([{"type": "input_text", "text": 3}]),
            "'input[0].content[0].text': should be a valid string",
        ),
        (
            ResponsesRequest,
            responses([{"type": "input_text"}]),
            "'input[0].content[0].text': field required",
        ),
        (
            ResponsesRequest,
            responses([{"type": "nonsense"}]),
            "'input[0].content[0].type': should be 'input_text' or 'input_image' or 'input_file'",
        ),
    ],
)
def test_the_field_at_fault_is_named_with_what_it_should_be(kind: Any, body: Any, message: str) -> None:
    said, field = description(kind, body)
    assert said == message
    assert field == message.split("'")[1]


def test_text_of_a_request_cannot_add_a_line() -> None:
    said, _ = description(ChatCompletionRequest, {"messages": [], "stop": {"a\nb": "x\ny"}})
    assert said.isprintable()


def test_a_body_that_is_no_json_is_described_with_the_place() -> None:
    error = {"type": "json_invalid", "loc": ("body", 7), "msg": "JSON decode error", "ctx": {"error": "x"}}
    assert describe([error]) == ("the body is not valid JSON: x at character 7", None)


def test_an_error_in_words_stays_as_it_is() -> None:
    error = RequestValidationError(errors=["Unsupported Media Type: Only 'application/json' is allowed"])
    assert describe(error.errors()) == ("Unsupported Media Type: Only 'application/json' is allowed", None)
