"""`get_template` and `get_default_template_type`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm_run.errors import TemplateError, UnknownModelError
from vlm_run.plugins.discovery import installed_plugins
from vlm_run.registry import Registry


@dataclass(frozen=True, slots=True)
class Template:
    """A chat template.

    Attributes:
        template_type: The name under which it was asked for.
        chat_template: The Jinja file.
        tokenizer: As given to `get_template`; not used.
        default_system: The system message of requests that have none.
    """

    template_type: str
    chat_template: str
    tokenizer: Any = None
    default_system: str | None = None


def get_default_template_type(model_type: str) -> str:
    """Return the name of a model type's chat template.

    >>> get_default_template_type("demo-llava")
    'demo-llava'

    Raises:
        UnknownModelError: No installed plugin serves the model type.
    """
    adapter = Registry.load(model_type)
    stem = Path(adapter.spec.chat_template).stem
    if _template_files().get(stem) == adapter.spec.chat_template:
        return stem
    return adapter.spec.model_type


def get_template(
    template_type: str,
    tokenizer: Any = None,
    default_system: str | None = None,
    max_length: int | None = None,
    truncation_strategy: str = "delete",
    *,
    model: Any = None,
) -> Template:
    """Return a chat template.

    Args:
        template_type: A name from `get_default_template_type`, a model type, or a Jinja file.
        tokenizer: Ignored; the engine's tokenizer is used.
        default_system: The system message of requests that have none.
        max_length: Ignored; a prompt is never truncated. One that is longer than the engine's
            `max_model_len` fails alone.
        truncation_strategy: Ignored, see `max_length`.
        model: Ignored, see `tokenizer`.

    Raises:
        TemplateError: There is no template of this name.
    """
    path = _template_files().get(template_type)
    if path is None and template_type.endswith(".jinja") and os.path.isfile(template_type):
        path = template_type
    if path is None:
        try:
            path = Registry.load(template_type).spec.chat_template
        except UnknownModelError:
            known = ", ".join(sorted(_template_files()))
            raise TemplateError(f"there is no template '{template_type}'", hint=f"Known: {known}.") from None
    return Template(template_type, path, tokenizer, default_system)


def _template_files() -> dict[str, str]:
    """Return the chat templates of all plugins by name, which is the stem of the file.

    If several have the same stem, the first one gets the name. A checkpoint's own template, whose file is
    always named chat_template, is named after its model type.
    """
    files: dict[str, str] = {}
    for spec, _ in installed_plugins().models():
        stem = Path(spec.chat_template).stem
        files.setdefault(spec.model_type if stem == "chat_template" else stem, spec.chat_template)
    return files
