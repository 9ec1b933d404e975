"""A request: a conversation, and how to sample the answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Self

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from vlm_run.errors import ConversationError, RequestError, did_you_mean, printable
from vlm_run.prompts.conversation import Conversation
from vlm_run.prompts.frames import FRAME_FIELDS, read_selection
from vlm_run.prompts.text import check_encodable

PIXEL_BOUNDS = ("min_pixels", "max_pixels")
"""Request fields that bound the area of its images, for models that resize images by area."""
# vLLM sends integers to its engine in 64 bits, and keeps `top_k` in 32.
_INT32 = 2**31 - 1
_INT64 = 2**63 - 1
_FLOAT32 = 1e38  # beyond it, infinity on the GPU
_MAX_ANSWERS = 16384  # vLLM's VLLM_MAX_N_SEQUENCES
_MAX_SCHEMA_DEPTH = 64  # vLLM's MAX_STRUCTURED_OUTPUT_JSON_NESTING
_NonEmptyText = Annotated[str, Field(min_length=1)]
_MESSAGE_KEYS = ("messages", "images", "videos", "sampling", "lora", "task")
_QUERY_KEYS = ("query", "history", "images", "videos", "system", "sampling", "lora", "task")


class Sampling(BaseModel):
    """Sampling parameters, in vLLM's names; `max_new_tokens` is accepted for `max_tokens`.

    The defaults are greedy, so that the same request gives the same answer. Values that vLLM would not take
    are refused, as is text that cannot be encoded in UTF-8.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    max_tokens: int | None = Field(
        default=None, ge=1, le=_INT64, validation_alias=AliasChoices("max_tokens", "max_new_tokens")
    )
    """Maximum number of tokens in the answer; None for all that fit in the context."""
    temperature: float = Field(default=0.0, ge=0.0, le=2.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    top_k: int = Field(default=0, ge=-1, le=_INT32)
    """Number of tokens considered; 0, or -1 as in earlier versions of vLLM, for all."""
    min_p: float = Field(default=0.0, ge=0.0, le=1.0)
    repetition_penalty: float = Field(default=1.0, gt=0.0, le=_FLOAT32)
    presence_penalty: float = Field(default=0.0, ge=-2.0, le=2.0)
    frequency_penalty: float = Field(default=0.0, ge=-2.0, le=2.0)
    seed: int | None = Field(default=None, ge=-_INT64 - 1, le=_INT64)
    stop: tuple[_NonEmptyText, ...] = ()
    """Strings at which the answer ends, in addition to the model type's; one string is accepted alone."""
    n: int = Field(default=1, ge=1, le=_MAX_ANSWERS)
    """Number of answers to one request."""
    json_schema: Mapping[str, Any] | None = None
    """A JSON schema that the answer follows, by vLLM's structured outputs."""
    choice: tuple[_NonEmptyText, ...] | None = Field(default=None, min_length=1)
    """Answers to choose from, by vLLM's structured outputs."""

    @field_validator("stop", mode="before")
    @classmethod
    def _read_stop(cls, value: Any) -> Any:
        if value is None:
            return ()
        return (value,) if isinstance(value, str) else value

    @field_validator("stop", "json_schema", "choice", mode="before")
    @classmethod
    def _check_text(cls, value: Any) -> Any:
        try:
            check_encodable(value, "the value")
        except ConversationError as error:
            raise ValueError(error.cause) from None
        return value

    @field_validator("json_schema")
    @classmethod
    def _check_schema(cls, value: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"the schema is not JSON: {error}") from None
        if _depth(value) > _MAX_SCHEMA_DEPTH:
            raise ValueError(f"the schema is nested more than {_MAX_SCHEMA_DEPTH} levels deep")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.json_schema is not None and self.choice is not None:
            raise ValueError("json_schema and choice are mutually exclusive")
        if self.n > 1 and self.temperature == 0.0:
            raise ValueError("n greedy answers would be identical; set a temperature")
        return self

    @classmethod
    def parse(cls, value: Sampling | Mapping[str, Any] | None, defaults: Sampling | None = None) -> Sampling:
        """Read sampling parameters.

        Args:
            value: Sampling parameters, a mapping of them, or None for the defaults.
            defaults: Defaults of the parameters that a mapping does not name, in place of the class's.

        Raises:
            RequestError: The value is not a mapping, a name is unknown, or a parameter is out of range.
        """
        if value is None:
            return defaults or cls()
        if isinstance(value, Sampling):
            return value
        if not isinstance(value, Mapping):
            raise RequestError(f"sampling parameters must be a mapping, not {type(value).__name__}")
        _check_keys(value, [*cls.model_fields, "max_new_tokens"], "sampling parameter")
        fields = dict(value)
        if defaults is not None:
            if "max_new_tokens" in fields:
                fields.setdefault("max_tokens", fields.pop("max_new_tokens"))
            # Both constrain the answer: a request's own choice replaces the default of either.
            others = {"json_schema", "choice"} if {"json_schema", "choice"} & fields.keys() else None
            fields = {**defaults.model_dump(exclude=others), **fields}
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            faults = [
                ": ".join(
                    filter(None, [".".join(map(str, each["loc"])), each["msg"].removeprefix("Value error, ")])
                )
                for each in error.errors(include_input=False, include_url=False)
            ]
            raise RequestError(f"invalid sampling parameters: {'; '.join(faults)}") from None


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    Attributes:
        conversation: The messages to answer.
        sampling: Sampling parameters of this request; None uses the defaults of the call.
        lora: Name of a LoRA adapter of the engine; None uses the engine's default, and an empty name
            the base model.
    """

    conversation: Conversation
    sampling: Sampling | None = None
    lora: str | None = None

    @classmethod
    def parse(cls, value: Request | Conversation | Mapping[str, Any] | str) -> Request:
        """A request from any of the forms that the Python API accepts.

        Args:
            value: A request, a conversation, a question, or a mapping with either `messages`
                (and `images`, `videos`) or `query` (and `history`, `images`, `videos`, `system`);
                `sampling`, `lora`, `task`, `min_pixels`, `max_pixels` and, for its videos, `fps`,
                `num_frames`, `max_frames`, `start` and `end` beside them apply to this request only.
                With `task`, `query` may be left out.

        Raises:
            ConversationError: The mapping has neither `query` nor `messages`, or is malformed.
            RequestError: A field is unknown, or `sampling`, `lora` or `task` is malformed.
        """
        if isinstance(value, Request):
            return value
        if isinstance(value, Conversation):
            return cls(value)
        if isinstance(value, str):
            return cls(Conversation.from_query(value))
        if not isinstance(value, Mapping):
            raise ConversationError(
                f"a request cannot be of type {type(value).__name__}",
                hint="Give a question, or a mapping with 'query' or 'messages'.",
            )
        fields = dict(value)
        own = fields.pop("sampling", None)
        sampling = None if own is None else Sampling.parse(own)
        lora = fields.pop("lora", None)
        if not isinstance(lora, str | None):
            raise RequestError(f"'lora' must be the name of a LoRA adapter, not {type(lora).__name__}")
        task = fields.pop("task", None)
        if not isinstance(task, str | None):
            raise RequestError(f"'task' must be the name of a task, not {type(task).__name__}")
        if task is not None and "messages" not in fields:
            fields.setdefault("query", "")
        bounds = {name: fields.pop(name, None) for name in PIXEL_BOUNDS}
        frames = {name: fields.pop(name, None) for name in FRAME_FIELDS}
        if "messages" in fields:
            _check_keys(fields, _MESSAGE_KEYS, "request field")
            conversation = Conversation.from_messages(**fields)
        elif "query" in fields:
            _check_keys(fields, _QUERY_KEYS, "request field")
            conversation = Conversation.from_query(**fields)
        else:
            raise ConversationError("the request has neither 'query' nor 'messages'")
        conversation = conversation.with_pixel_bounds(**bounds)
        selection = read_selection({**frames, "max_pixels": bounds["max_pixels"]}, "the request")
        if any(value is not None for value in frames.values()) and not conversation.videos:
            named = next(name for name, value in frames.items() if value is not None)
            raise RequestError(f"'{named}' is given, but the request has no video")
        return cls(replace(conversation.with_frame_selection(selection), task=task), sampling, lora)


def _check_keys(fields: Mapping[str, Any], known: list[str] | tuple[str, ...], what: str) -> None:
    for key in fields:
        if key not in known:
            raise RequestError(
                f"unknown {what} '{printable(str(key))}'",
                hint=did_you_mean(str(key), known) or f"Known: {', '.join(known)}.",
            )


def _depth(value: Any) -> int:
    """Return how deeply a JSON value is nested."""
    depth, level = 0, [value]
    while level := [
        inner
        for item in level
        if isinstance(item, (Mapping, list, tuple))
        for inner in (item.values() if isinstance(item, Mapping) else item)
    ]:
        depth += 1
    return depth


def read_pixel_bounds(processor_kwargs: Any, hint: str) -> dict[str, Any]:
    """The bounds on the area of images in a request's `mm_processor_kwargs`, which may set nothing else.

    Args:
        processor_kwargs: As the request has them; None where it has none.
        hint: How to set the other options for all requests.

    Raises:
        RequestError: They are not an object, or name another option.
    """
    if processor_kwargs is None:
        return {}
    if not isinstance(processor_kwargs, Mapping):
        raise RequestError(f"'mm_processor_kwargs' must be an object, not {type(processor_kwargs).__name__}")
    for name in processor_kwargs:
        if name not in PIXEL_BOUNDS:
            raise RequestError(
                f"'{name}' in 'mm_processor_kwargs' cannot be given in a request",
                hint=f"Known: {', '.join(PIXEL_BOUNDS)}. {hint}",
            )
    return dict(processor_kwargs)
