"""Chat templates: Jinja in the Hugging Face dialect, sandboxed.

Renders as transformers' `apply_chat_template` does, without importing transformers, so that a prompt
can be shown where no model library is installed. The same template files work with
`vllm serve --chat-template`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from vlm_run.checkpoints.chat_template_file import template_source
from vlm_run.errors import PluginError, TemplateError


class _Refusal(jinja2.TemplateError):
    """The error that a template raises through `raise_exception`."""


class _GenerationBlock(Extension):
    """`{% generation %}…{% endgeneration %}` marks the answer for training; only its body is rendered."""

    tags = {"generation"}  # noqa: RUF012  (how Jinja declares the tags of an extension)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def render(
    template: Path,
    messages: Sequence[dict[str, Any]],
    *,
    bos_token: str = "",
    eos_token: str = "",
    tools: Sequence[Mapping[str, Any]] = (),
    variables: Mapping[str, Any] | None = None,
) -> str:
    """Render the prompt up to where the model's answer begins.

    Args:
        template: A Jinja file, or a JSON file with the entry `chat_template`.
        messages: The template's `messages`; content is a list of parts.
        bos_token: The template's `bos_token`.
        eos_token: The template's `eos_token`.
        tools: The template's `tools`.
        variables: Further variables of the template; one with the name of another argument has no effect.

    Raises:
        TemplateError: The template refused the messages through `raise_exception`.
        PluginError: The template is missing or broken.
    """
    try:
        return _compiled(template).render(
            {
                **(variables or {}),
                "messages": messages,
                "tools": list(tools) or None,  # None, not undefined: templates distinguish the two
                "documents": None,
                "add_generation_prompt": True,
                "bos_token": bos_token,
                "eos_token": eos_token,
            }
        )
    except _Refusal as refusal:
        raise TemplateError(f"the chat template refuses the conversation: {refusal}") from None
    except Exception as error:  # expressions in a template raise any of Python's exceptions
        raise PluginError(f"the chat template {template.name} failed: {error}") from error


@lru_cache(maxsize=64)
def _compiled(template: Path) -> jinja2.Template:
    template.stat()  # a missing file is an error, not an empty prompt
    return _environment().from_string(template_source(template))


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _to_json(value: Any, indent: int | None = None) -> str:
    # Jinja's own filter escapes characters for HTML, which would change the prompt.
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> NoReturn:
    raise _Refusal(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)
