"""A response: the answer with its usage, or the error of this request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vlm_run.errors import VlmRunError

if TYPE_CHECKING:
    from vlm_run.boxes import Box


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one request.

    Attributes:
        prompt_tokens: Tokens of the whole prompt, including those of images and videos.
        image_tokens: Tokens of each image, in order.
        completion_tokens: Tokens of the answer.
        video_tokens: Tokens of each video, in order.
    """

    prompt_tokens: int = 0
    image_tokens: tuple[int, ...] = ()
    completion_tokens: int = 0
    video_tokens: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Stages:
    """Seconds that a request spent in each stage. It spent the rest of its time waiting between stages.

    Attributes:
        fetch: Fetching remote images.
        decode: Reading and decoding images, and the plugin's `preprocess_image`.
        process: vLLM's processor for the model; without renderer processes, including the wait for it.
        engine: From when the engine accepted the request to its last token.
    """

    fetch: float = 0.0
    decode: float = 0.0
    process: float = 0.0
    engine: float = 0.0


@dataclass(frozen=True, slots=True)
class Response:
    """The answer to one request.

    Attributes:
        response: The answer; empty if the request failed.
        history: The conversation with this answer as [query, response] pairs, to pass on as the
            next request's `history`.
        usage: Token counts.
        finish_reason: `stop`, `length` (the answer was cut at `max_tokens` or at the context's
            end) or `error`.
        error: Why the request failed, usually a `RequestError`; None if it succeeded.
        seconds: Time from the request to the last token of the answer.
        first_token_seconds: Time from the request to the first token of the answer.
        responses: All answers if the request asked for `n` of them; `response` is the first.
        stages: Time spent in each stage; not part of `to_dict`.
        boxes: The boxes in `response`, in pixels of the original images; empty if there are none, or if
            the model type's `box_coordinates` are not known.
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
    boxes: tuple[Box, ...] = ()

    def raise_for_error(self) -> Response:
        """Return this response, or raise its error."""
        if self.error is not None:
            raise self.error
        return self

    def to_dict(self) -> dict[str, Any]:
        """The response as JSON-compatible data, for `--json` and result files."""
        answer: dict[str, Any] = {
            "response": self.response,
            "history": self.history,
            "usage": {
                "prompt_tokens": self.usage.prompt_tokens,
                "image_tokens": sum(self.usage.image_tokens),
                "image_tokens_each": list(self.usage.image_tokens),
                **({"video_tokens_each": list(self.usage.video_tokens)} if self.usage.video_tokens else {}),
                "completion_tokens": self.usage.completion_tokens,
                "total_tokens": self.usage.prompt_tokens + self.usage.completion_tokens,
            },
            "finish_reason": self.finish_reason,
            "seconds": round(self.seconds, 4),
            "first_token_seconds": round(self.first_token_seconds, 4),
        }
        if self.responses:
            answer["responses"] = list(self.responses)
        if self.boxes:
            answer["boxes"] = [box.to_dict() for box in self.boxes]
        if self.error is not None:
            answer["error"] = {"type": type(self.error).__name__, "message": str(self.error)}
        return answer


@dataclass(frozen=True, slots=True)
class Trace:
    """A greedy answer token by token, for comparison with another implementation.

    Attributes:
        response: The answer.
        prompt_token_ids: The prompt, with image tokens expanded.
        token_ids: The answer, including the token that ended it.
        logprobs: Natural logarithm of the probability of each token of the answer.
    """

    response: str
    prompt_token_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a streamed answer.

    Attributes:
        text: The text that was added.
        response: The whole response, in the last piece only.
    """

    text: str
    response: Response | None = None
