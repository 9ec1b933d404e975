"""Lines of OpenAI's batch format, in which sampling parameters stand beside the messages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from vlm_run.batch.messages import read_messages
from vlm_run.errors import ConversationError, RequestError
from vlm_run.request import PIXEL_BOUNDS, Sampling, read_pixel_bounds

# Parameters that do not change an answer, or that every answer here has.
_IGNORED = ("model", "stream", "stream_options", "user", "metadata", "store")
# vLLM's names of constraints, and those of `Sampling`.
_STRUCTURED_OUTPUTS = {"json": "json_schema", "choice": "choice"}


def read_body(body: Any, system: str | None) -> dict[str, Any]:
    """Read a chat completion request into a request as `Request.parse` takes it.

    Args:
        body: The `body` of a line.
        system: The system message of requests that have none.

    Raises:
        RequestError: It is not a chat completion request, or a parameter is not supported.
    """
    if not isinstance(body, Mapping) or "messages" not in body:
        raise ConversationError("'body' has no messages", hint="Only chat completions are supported.")
    parameters = {key: value for key, value in body.items() if key not in ("messages", "images", *_IGNORED)}
    bounds = read_pixel_bounds(
        parameters.pop("mm_processor_kwargs", None), "Set others with --engine mm_processor_kwargs=…."
    )
    bounds |= {name: parameters.pop(name) for name in (*PIXEL_BOUNDS, "task") if name in parameters}
    sampling = _read_constraints(
        parameters.pop("response_format", None), parameters.pop("structured_outputs", None)
    )
    if "max_completion_tokens" in parameters:
        parameters["max_tokens"] = parameters.pop("max_completion_tokens")
    # A feature that is switched off, as by `"logprobs": false`, need not be supported.
    sampling |= {
        key: value for key, value in parameters.items() if value is not False or key in Sampling.model_fields
    }
    return {
        "messages": read_messages(body["messages"], "messages", system),
        **({"images": body["images"]} if "images" in body else {}),
        **bounds,
        **({"sampling": sampling} if sampling else {}),
    }


def _read_constraints(response_format: Any, structured_outputs: Any) -> dict[str, Any]:
    """Return what OpenAI's and vLLM's parameters demand of an answer, in `Sampling`'s names."""
    schema, structured = _read_response_format(response_format), _read_structured(structured_outputs)
    if schema and structured:
        raise RequestError("'response_format' and 'structured_outputs' are mutually exclusive")
    return schema or structured


def _read_response_format(response_format: Any) -> dict[str, Any]:
    if response_format is None:
        return {}
    kind = response_format.get("type") if isinstance(response_format, Mapping) else None
    if not isinstance(kind, str):
        raise RequestError(
            "'response_format' must be an object with a 'type'",
            hint='For example {"type": "json_schema", "json_schema": {"schema": {…}}}.',
        )
    if kind == "text":
        return {}
    if kind == "json_object":
        return {"json_schema": {"type": "object"}}
    if kind != "json_schema":
        raise RequestError(
            f"response_format of type {kind!r} is not supported",
            hint="Known: text, json_object, json_schema.",
        )
    outer = response_format.get("json_schema")
    schema = outer.get("schema") if isinstance(outer, Mapping) else None
    if not isinstance(schema, Mapping):
        raise RequestError(
            "'response_format' of type 'json_schema' has no schema",
            hint='Write {"type": "json_schema", "json_schema": {"schema": {…}}}.',
        )
    return {"json_schema": schema}


def _read_structured(structured_outputs: Any) -> dict[str, Any]:
    if structured_outputs is None:
        return {}
    if not isinstance(structured_outputs, Mapping):
        raise RequestError(
            f"'structured_outputs' must be an object, not {type(structured_outputs).__name__}",
            hint=f"Known keys: {', '.join(_STRUCTURED_OUTPUTS)}.",
        )
    sampling = {}
    for key, value in structured_outputs.items():
        if value is None or value is False:
            continue
        if key not in _STRUCTURED_OUTPUTS:
            raise RequestError(
                f"'structured_outputs.{key}' is not supported",
                hint=f"Known: {', '.join(_STRUCTURED_OUTPUTS)}.",
            )
        sampling[_STRUCTURED_OUTPUTS[key]] = _parse_schema(value) if key == "json" else value
    return sampling


def _parse_schema(schema: Any) -> Any:
    """Parse a schema that is given as JSON text, as vLLM accepts it."""
    if not isinstance(schema, str):
        return schema
    try:
        return json.loads(schema)
    except ValueError as error:
        raise RequestError(f"'structured_outputs.json' is not JSON: {error}") from None
