"""The string by which a chat template represents an image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vlm_run.checkpoints.special_tokens import SpecialTokens
from vlm_run.errors import PluginError, TemplateError, UnknownModelError

# Texts that no template writes itself, before and after an image.
_BEFORE, _AFTER = "Qbeforeq", "Qafterq"
_IMAGE = {"type": "image"}


class PlaceholderUnknownError(UnknownModelError):
    """The chat template does not tell how an image is represented in the prompt."""


@dataclass(frozen=True, slots=True)
class Placeholder:
    """A placeholder with its origin.

    Attributes:
        text: The string; `{index}` in it is the number of the image.
        content: What the template expects as content, see `ModelSpec.template_content`.
        source: Where the string comes from.
    """

    text: str
    content: Literal["parts", "text"]
    source: str


def placeholder_of(template: Path | None, tokens: SpecialTokens, given: str | None) -> Placeholder:
    """The placeholder that a chat template writes, else the given one.

    Args:
        template: The chat template's file; None if the checkpoint has none.
        tokens: The variables of the template.
        given: The placeholder to use if the template does not write one.

    Raises:
        PlaceholderUnknownError: The template does not write one, and none is given.
    """
    if template is not None:
        written = _written(template, tokens, [_BEFORE, _IMAGE, _AFTER], [_IMAGE, _AFTER])
        if written is not None:
            return Placeholder(written, "parts", f"{template.name}, rendered with an image")
    content: Literal["parts", "text"] = "parts"
    if template is not None and not _takes_parts(template, tokens):
        content = "text"
    if given is not None:
        return Placeholder(given, content, "vLLM's placeholder for the model's class")
    if image := tokens.names.get("image_token"):
        return Placeholder(image, content, "tokenizer_config.json: image_token")
    raise PlaceholderUnknownError(
        "the chat template does not write anything for an image"
        if template is not None
        else "the checkpoint has no chat template and names no image token",
        hint="Give a template that writes the model's image token with --chat-template.",
    )


def _written(template: Path, tokens: SpecialTokens, *attempts: list[Any]) -> str | None:
    """What a template writes for an image; None if nothing or if it refuses the messages."""
    for content in attempts:
        without = _render(template, tokens, [part for part in content if part is not _IMAGE])
        one = _render(template, tokens, content)
        if not without or not one or "'type'" in one:
            continue
        text = _inserted(without, one)
        if not text:
            continue
        twice = [each for part in content for each in ([part, part] if part is _IMAGE else [part])]
        two = _inserted(without, _render(template, tokens, twice) or "")
        return _with_index(text, two)
    return None


def _with_index(one: str, two: str) -> str:
    """The placeholder with `{index}` in place of a number that counts the images."""
    if two.count(one) < 2 and "1" in one:
        numbered = one.replace("1", "{index}", 1)
        if one in two and numbered.replace("{index}", "2") in two:
            return numbered
    return one


def _inserted(without: str, with_image: str) -> str:
    """The text that an image adds to a prompt, without white space around it."""
    start = _shared(without, with_image)
    end = _shared(without[start:][::-1], with_image[start:][::-1])
    return with_image[start : len(with_image) - end].strip()


def _shared(one: str, other: str) -> int:
    """The length of the longest common prefix."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(one), len(other)))


def _takes_parts(template: Path, tokens: SpecialTokens) -> bool:
    rendered = _render(template, tokens, [_AFTER])
    return rendered is not None and _AFTER in rendered and "'type'" not in rendered


def _render(template: Path, tokens: SpecialTokens, content: list[Any]) -> str | None:
    parts = [{"type": "text", "text": part} if isinstance(part, str) else part for part in content]
    try:
        from vlm_run.prompts import chat_template  # imports Jinja2

        return chat_template.render(
            template,
            [{"role": "user", "content": parts}],
            bos_token=tokens.names.get("bos_token", ""),
            eos_token=tokens.names.get("eos_token", ""),
            variables=tokens.names,
        )
    except (TemplateError, PluginError):
        return None
