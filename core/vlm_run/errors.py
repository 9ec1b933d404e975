"""The errors that callers handle: one hierarchy, each with a cause, a location and a hint.

Everything that vlm-run raises on purpose is a `VlmRunError`. `str(error)` is one or two
sentences for a person: what was wrong, where, and (the `hint`) what to do about it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches


def printable(text: str, most: int = 60) -> str:
    """Untrusted text for an error message: one line of printable characters, cut off at `most`.

    >>> printable("http://a\\nb")
    'http://a\\\\nb'
    """
    cut = text if len(text) <= most else f"{text[: most - 3]}..."
    return cut if cut.isprintable() else repr(cut)[1:-1]


def did_you_mean(
    name: str, known: Iterable[str], *, most: int = 1, key: Callable[[str], str] = str
) -> str | None:
    """The hint for a misspelt or incomplete name: the known names that begin with it, or else the closest.

    >>> did_you_mean("max_nun_seqs", ["max_num_seqs", "max_model_len"])
    "Did you mean 'max_num_seqs'?"
    >>> did_you_mean("qwen2-vl-2b", ["qwen-vl", "qwen2-vl-2b-instruct"])
    "Did you mean 'qwen2-vl-2b-instruct'?"

    Args:
        name: The name as written.
        known: The names to choose from.
        most: How many to offer at most, the shortest or the closest first.
        key: Maps every name to the form in which names are compared.

    Returns:
        A question, or None if no known name is close.
    """
    names = {key(each): each for each in known}
    wanted = key(name)
    completions = sorted((form for form in names if form.startswith(wanted)), key=len) if wanted else []
    near = completions[:most] or get_close_matches(wanted, names, n=most)
    if not near:
        return None
    *others, last = (f"'{names[form]}'" for form in near)
    return f"Did you mean {', '.join(others)} or {last}?" if others else f"Did you mean {last}?"


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
    """No installed plugin serves the model, or a checkpoint fits several model types."""


class PluginError(VlmRunError):
    """A plugin broke the contract: a hook raised an exception or returned a value of the wrong type."""


class UnknownTokenCountError(PluginError):
    """The number of tokens that an image takes cannot be determined."""


class RequestError(VlmRunError):
    """One request cannot be served; the engine and all other requests are unaffected.

    Args:
        cause: What was wrong.
        hint: What to do about it.
        message_index: Zero-based index of the message at fault; None if it is no single message.
        image_index: Zero-based index of the image at fault, counted over the whole
            conversation; None if it is no single image.
        video_index: Likewise, of the video at fault.
    """

    def __init__(
        self,
        cause: str,
        *,
        hint: str | None = None,
        message_index: int | None = None,
        image_index: int | None = None,
        video_index: int | None = None,
    ) -> None:
        super().__init__(cause, hint=hint)
        self.message_index = message_index
        self.image_index = image_index
        self.video_index = video_index

    def __str__(self) -> str:
        place = []
        if self.message_index is not None:
            place.append(f"message {self.message_index + 1}")
        if self.image_index is not None:
            place.append(f"image {self.image_index + 1}")
        if self.video_index is not None:
            place.append(f"video {self.video_index + 1}")
        where = f"{', '.join(place)}: " if place else ""
        return where + super().__str__()


class ConversationError(RequestError):
    """The messages are malformed, or their image tags do not match the images."""


class MediaError(RequestError):
    """An image or a video cannot be fetched or decoded, or the media policy or the model refuses it."""


class MediaWarning(UserWarning):
    """An image may not have been read as intended; the message says why."""


class TemplateError(RequestError):
    """The chat template refused the conversation or failed while rendering it."""


class ContextOverflowError(RequestError):
    """The prompt does not fit in the engine's `max_model_len`."""


class DownloadError(VlmRunError):
    """A checkpoint cannot be downloaded: no network, no such repository, or no access to it."""


class EngineError(VlmRunError):
    """The engine cannot start, has died, or was given an unknown option."""


def as_request_error(error: Exception) -> VlmRunError:
    """Return an exception that one request caused as an error of that request.

    This is the boundary around each request: whatever a library raises while the request is read,
    rendered or submitted fails that request alone, with the cause.

    >>> as_request_error(UnicodeError("no such codec")).cause
    'the request cannot be served (UnicodeError: no such codec)'
    """
    if isinstance(error, VlmRunError):
        return error
    if isinstance(error, RecursionError):
        return RequestError("the request is nested too deeply")
    if isinstance(error, MemoryError):
        return RequestError("there is not enough memory for the request")
    reason = printable(" ".join(str(error).split()), 300)
    named = ": ".join(filter(None, [type(error).__name__, reason]))
    return RequestError(f"the request cannot be served ({named})")
