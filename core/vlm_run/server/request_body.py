"""A check of every JSON body before its endpoint reads it.

Python's JSON parser accepts what neither a tokenizer nor vLLM's engine does: lone surrogates, integers of
any size, NaN and infinite numbers, and deep nesting. vLLM would respond to some of these with status 500, and
so to fields of a wrong type that its checks of several fields use.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import Request
from vllm.entrypoints.serve.utils.api_utils import validate_json_request

from vlm_run.errors import RequestError
from vlm_run.prompts.text import check_encodable

# vLLM sends integers to its engine in 64 bits.
_INT64 = range(-(2**63), 2**63)
_MAX_DEPTH = 100
# The fields whose items are messages.
_MESSAGES = ("messages", "input")
# Fields that vLLM's own checks use before their types are checked.
_TYPES: Mapping[str, tuple[type | tuple[type, ...], str]] = {
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
        RequestError: A value in the body cannot be encoded, is out of range, or is nested too deeply.
    """
    await validate_json_request(raw_request)
    if not await raw_request.body():  # which the endpoint refuses itself
        return
    body = await raw_request.json()
    _check_types(body)
    for place, message_index, value in _places(body):
        check_encodable(value, place, message_index)
        _check_numbers_and_depth(value, place, message_index)


def _check_types(body: Any) -> None:
    for name, (kind, description) in _TYPES.items() if isinstance(body, Mapping) else ():
        value = body.get(name)
        if value is not None and not isinstance(value, kind):
            raise RequestError(f"'{name}': should be {description}")


def _places(body: Any) -> Iterator[tuple[str, int | None, Any]]:
    """The parts of a body that errors name: fields, and single messages."""
    if not isinstance(body, Mapping):
        yield "the body", None, body
        return
    yield "a field's name", None, list(body)
    for name, value in body.items():
        if name in _MESSAGES and isinstance(value, list):
            yield from (("the message", index, item) for index, item in enumerate(value))
        else:
            yield f"'{name}'", None, value


def _check_numbers_and_depth(value: Any, place: str, message_index: int | None) -> None:
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > _MAX_DEPTH:
            raise RequestError(
                f"{place} is nested more than {_MAX_DEPTH} levels deep", message_index=message_index
            )
        inner: list[Any] = []
        for item in level:
            if isinstance(item, Mapping):
                inner += item.values()
            elif isinstance(item, list):
                inner += item
            elif isinstance(item, int) and item not in _INT64:
                raise RequestError(
                    f"{place} has an integer that does not fit in 64 bits", message_index=message_index
                )
            elif isinstance(item, float) and not math.isfinite(item):
                raise RequestError(f"{place} has a number that is not finite", message_index=message_index)
        level = inner
