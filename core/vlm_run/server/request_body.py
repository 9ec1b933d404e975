"""A check of every JSON body before its endpoint reads it.

Python's JSON parser accepts what neither a tokenizer nor vLLM's engine does: lone surrogates, integers of
any size, NaN and infinite numbers, and deep nesting. vLLM would respond to some of these with status 500, and
so to fields of a wrong type that its checks of several fields use.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fastapi import Request
from vllm.entrypoints.serve.utils.api_utils import validate_json_request

from vlm_run.errors import ConversationError
from vlm_run.prompts.text import check_encodable
from vlm_run.server.error_responses import MalformedError

# vLLM sends integers to its engine in 64 bits.
_INT64 = range(-(2**63), 2**63)
_MAX_DEPTH = 100
# The fields whose items are messages.
_MESSAGES = ("messages", "input")
# Fields that vLLM's own checks use before their types are checked.
_TYPES: Mapping[str, tuple[type, str]] = {
    "structured_outputs": (dict, "an object"),
    "response_format": (dict, "an object"),
    "stream_options": (dict, "an object"),
    "kv_transfer_params": (dict, "an object"),
    "tools": (list, "a list"),
    "prompt_logprobs": (int, "an integer"),
    "top_logprobs": (int, "an integer"),
    "logprobs": (int, "an integer, or true or false"),
}


async def check_json_body(raw_request: Request) -> None:
    """Check a request's body; takes the place of vLLM's dependency `validate_json_request`.

    Raises:
        RequestValidationError: The body is not JSON.
        MalformedError: A value in the body cannot be encoded, is out of range, or is nested too deeply.
    """
    await validate_json_request(raw_request)
    if not await raw_request.body():  # which the endpoint refuses itself
        return
    body = await raw_request.json()
    if not isinstance(body, Mapping):
        _check("the body", body)
        return
    _check("a field's name", list(body))
    for name, value in body.items():
        _check_type(name, value)
        if name in _MESSAGES and isinstance(value, list):
            for index, message in enumerate(value):
                _check("the message", message, message_index=index)
        else:
            _check(f"'{name}'", value, field=name)


def _check_type(name: str, value: Any) -> None:
    kind, description = _TYPES.get(name, (object, ""))
    if value is not None and not isinstance(value, kind):
        raise MalformedError(f"'{name}': should be {description}", field=name)


def _check(place: str, value: Any, *, field: str | None = None, message_index: int | None = None) -> None:
    try:
        check_encodable(value, place)
    except ConversationError as error:
        raise MalformedError(error.cause, hint=error.hint, field=field, message_index=message_index) from None
    if fault := _fault(value):
        raise MalformedError(f"{place} {fault}", field=field, message_index=message_index)


def _fault(value: Any) -> str | None:
    """Describe a fault of a value's numbers or depth; None if both are fine."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > _MAX_DEPTH:
            return f"is nested more than {_MAX_DEPTH} levels deep"
        inner: list[Any] = []
        for item in level:
            if isinstance(item, Mapping):
                inner += item.values()
            elif isinstance(item, list):
                inner += item
            elif isinstance(item, int) and item not in _INT64:
                return "has an integer that does not fit in 64 bits"
            elif isinstance(item, float) and not math.isfinite(item):
                return "has a number that is not finite"
        level = inner
    return None
