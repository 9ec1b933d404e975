"""What a caller gets: the answer with its usage, or the error that this one request met."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vlm_run.errors import VlmRunError


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that a request took."""

    prompt_tokens: int = 0
    """The whole prompt, image tokens among them."""
    image_tokens: tuple[int, ...] = ()
    """Those of each image, in order."""
    completion_tokens: int = 0
    """The answer."""


@dataclass(frozen=True, slots=True)
class Stages:
    """Where a request's time went, in seconds; what is missing from the whole it spent waiting in between."""

    fetch: float = 0.0
    """Fetching its remote images."""
    decode: float = 0.0
    """Reading and decoding its images, and what the plugin does to them."""
    process: float = 0.0
    """vLLM's processor for the model. Without renderer processes, waiting for it is part of this."""
    engine: float = 0.0
    """From the engine's taking it to its last token."""


@dataclass(frozen=True, slots=True)
class Response:
    """The answer to one request.

    Attributes:
        response: The answer; empty if the request failed.
        history: The conversation with this answer as [query, response] pairs, to pass on as the
            next request's `history`.
        usage: Tokens taken.
        finish_reason: `stop`, `length` (the answer was cut at `max_tokens` or at the context's
            end) or `error`.
        error: Why this request failed, usually a `RequestError`; None if it did not.
        seconds: From the request to its last token, and to its first one.
        responses: All answers where `n` of them were asked for, `response` being the first.
        stages: Where the time went; not part of `to_dict`.
    """

    response: str = ""
    history: list[list[str]] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    finish_reason: str = "stop"
    error: VlmRunError | None = None
    seconds: float = 0.0
    first_token_seconds: float = 0.0
    responses: tuple[str, ...] = ()
    stages: Stages = field(default_factory=Stages)

    def raise_for_error(self) -> Response:
        """This response, or its error raised."""
        if self.error is not None:
            raise self.error
        return self

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form, for `--json` and result files."""
        answer: dict[str, Any] = {
            "response": self.response,
            "history": self.history,
            "usage": {
                "prompt_tokens": self.usage.prompt_tokens,
                "image_tokens": sum(self.usage.image_tokens),
                "image_tokens_each": list(self.usage.image_tokens),
                "completion_tokens": self.usage.completion_tokens,
                "total_tokens": self.usage.prompt_tokens + self.usage.completion_tokens,
            },
            "finish_reason": self.finish_reason,
            "seconds": round(self.seconds, 4),
            "first_token_seconds": round(self.first_token_seconds, 4),
        }
        if self.responses:
            answer["responses"] = list(self.responses)
        if self.error is not None:
            answer["error"] = {"type": type(self.error).__name__, "message": str(self.error)}
        return answer


@dataclass(frozen=True, slots=True)
class Trace:
    """A greedy answer token by token, to compare it with another implementation's.

    Attributes:
        response: The answer.
        prompt_token_ids: The prompt, with as many image tokens as the images take.
        token_ids: The answer, the token that ended it among them.
        logprobs: The natural logarithm of the probability of each of them.
    """

    response: str
    prompt_token_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a streamed answer; the last one carries the whole response."""

    text: str
    response: Response | None = None
