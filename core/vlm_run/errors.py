"""The errors a caller can meet: one hierarchy, each with a cause, a place and a next step.

Everything that vlm-run raises on purpose is a `VlmRunError`. `str(error)` is one or two
sentences for a person: what was wrong, where, and (as `hint`) what to do about it.
"""

from __future__ import annotations


def printable(text: str, most: int = 60) -> str:
    """Text of someone else's for a message: one line of printable characters, cut off at `most`.

    >>> printable("http://a\\nb")
    'http://a\\\\nb'
    """
    cut = text if len(text) <= most else f"{text[: most - 3]}..."
    return cut if cut.isprintable() else repr(cut)[1:-1]


class VlmRunError(Exception):
    """Base of all errors that vlm-run raises on purpose.

    Args:
        cause: What was wrong, in one sentence without a full stop at its end.
        hint: What to do about it, as an imperative sentence.
    """

    def __init__(self, cause: str, *, hint: str | None = None) -> None:
        super().__init__(cause)
        self.cause = cause
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.cause}. {self.hint}" if self.hint else self.cause


class UnknownModelError(VlmRunError):
    """No installed plugin serves the model type, or a checkpoint folder matches none."""


class PluginError(VlmRunError):
    """A plugin broke its side of the contract: a hook raised or returned the wrong thing."""


class RequestError(VlmRunError):
    """One request cannot be served; the engine and all other requests are unharmed.

    Args:
        cause: What was wrong.
        hint: What to do about it.
        message_index: Zero-based index of the message at fault, if one is.
        image_index: Zero-based index of the image at fault, counted over the whole
            conversation, if one is.
    """

    def __init__(
        self,
        cause: str,
        *,
        hint: str | None = None,
        message_index: int | None = None,
        image_index: int | None = None,
    ) -> None:
        super().__init__(cause, hint=hint)
        self.message_index = message_index
        self.image_index = image_index

    def __str__(self) -> str:
        place = []
        if self.message_index is not None:
            place.append(f"message {self.message_index + 1}")
        if self.image_index is not None:
            place.append(f"image {self.image_index + 1}")
        where = f"{', '.join(place)}: " if place else ""
        return where + super().__str__()


class ConversationError(RequestError):
    """The messages or their shorthand are malformed, or tags and images do not match."""


class MediaError(RequestError):
    """An image cannot be fetched, is refused by the media policy, or cannot be decoded."""


class TemplateError(RequestError):
    """The chat template refused the conversation or failed while rendering it."""


class ContextOverflowError(RequestError):
    """The prompt does not fit in the engine's `max_model_len`."""


class EngineError(VlmRunError):
    """The engine cannot start, has died, or does not know an option."""
