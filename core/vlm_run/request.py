"""What a caller asks: a conversation and how to sample the answer."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, model_validator

from vlm_run.errors import ConversationError, RequestError
from vlm_run.prompts.conversation import Conversation

PIXEL_BOUNDS = ("min_pixels", "max_pixels")
"""Of a request's images, where the model resizes by area."""
_MESSAGE_KEYS = ("messages", "images")
_QUERY_KEYS = ("query", "history", "images", "system")


class Sampling(BaseModel):
    """Sampling parameters, under vLLM's names; `max_new_tokens` is accepted for `max_tokens`.

    The defaults are greedy: the same request gives the same answer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    max_tokens: int | None = Field(
        default=None, ge=1, validation_alias=AliasChoices("max_tokens", "max_new_tokens")
    )
    """Most tokens in the answer; None leaves all that fits in the context."""
    temperature: float = Field(default=0.0, ge=0.0, le=2.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    top_k: int = Field(default=0, ge=-1)
    """0, or -1 as vLLM and ms-swift had it once, considers all tokens."""
    min_p: float = Field(default=0.0, ge=0.0, le=1.0)
    repetition_penalty: float = Field(default=1.0, gt=0.0)
    presence_penalty: float = Field(default=0.0, ge=-2.0, le=2.0)
    frequency_penalty: float = Field(default=0.0, ge=-2.0, le=2.0)
    seed: int | None = None
    stop: tuple[str, ...] = ()
    """Strings at which the answer ends, beside those of the model type."""
    n: int = Field(default=1, ge=1)
    """Answers to one request."""
    json_schema: Mapping[str, Any] | None = None
    """The answer is JSON that this schema allows, by vLLM's structured output."""
    choice: tuple[str, ...] | None = Field(default=None, min_length=1)
    """The answer is one of these, by vLLM's structured output."""

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.json_schema is not None and self.choice is not None:
            raise ValueError("json_schema and choice exclude each other")
        if self.n > 1 and self.temperature == 0.0:
            raise ValueError("n greedy answers would be the same one; set a temperature")
        return self

    @classmethod
    def parse(cls, value: Sampling | Mapping[str, Any] | None, defaults: Sampling | None = None) -> Sampling:
        """Sampling parameters from themselves, a mapping, or None for the defaults.

        Args:
            value: The parameters.
            defaults: For what a mapping does not name, in place of the class's.

        Raises:
            RequestError: They are no mapping, a name is unknown or a value is out of its range.
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
            # Either says what form the answer has.
            others = {"json_schema", "choice"} if {"json_schema", "choice"} & fields.keys() else None
            fields = {**defaults.model_dump(exclude=others), **fields}
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
            raise RequestError(f"invalid sampling parameters: {'; '.join(faults)}") from None


@dataclass(frozen=True, slots=True)
class Request:
    """One request: a conversation, and sampling parameters of its own if it has any."""

    conversation: Conversation
    sampling: Sampling | None = None

    @classmethod
    def parse(cls, value: Request | Conversation | Mapping[str, Any] | str) -> Request:
        """A request from any of the shapes that the Python API takes.

        Args:
            value: A request, a conversation, a question, or a mapping with either `messages`
                (and `images`) or `query` (and `history`, `images`, `system`); `sampling`,
                `min_pixels` and `max_pixels` beside them hold for this request alone.

        Raises:
            ConversationError: The mapping is neither, or its content is malformed.
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
        bounds = {name: fields.pop(name, None) for name in PIXEL_BOUNDS}
        if "messages" in fields:
            _check_keys(fields, _MESSAGE_KEYS, "request field")
            conversation = Conversation.from_messages(**fields)
        elif "query" in fields:
            _check_keys(fields, _QUERY_KEYS, "request field")
            conversation = Conversation.from_query(**fields)
        else:
            raise ConversationError("the request has neither 'query' nor 'messages'")
        return cls(conversation.with_pixel_bounds(**bounds), sampling)


def _check_keys(fields: Mapping[str, Any], known: list[str] | tuple[str, ...], what: str) -> None:
    for key in fields:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            raise RequestError(
                f"unknown {what} '{key}'",
                hint=f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(known)}.",
            )
