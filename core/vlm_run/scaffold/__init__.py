"""Writes a new plugin as a complete package, from the files in the directory `files`."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vlm_run.checkpoints.chat_template_file import template_source
from vlm_run.derivation import derive
from vlm_run.errors import VlmRunError
from vlm_run.plugins import defaults
from vlm_run.plugins.matching import read_config
from vlm_run.prompts.conversation import Conversation
from vlm_run.specs import ModelSpec

_PREFIX = "vlm-run-"
_NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
_HF_ID = re.compile(r"[\w.-]+/[\w.-]+")

# Each file of the new package, by the file from which it is rendered.
_FILES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "gitignore": ".gitignore",
    "ci.yml": ".github/workflows/ci.yml",
    "package.py": "{package}/__init__.py",
    "chat-template.jinja": "{package}/templates/{name}.jinja",
    "test_conformance.py": "tests/test_conformance.py",
    "test_prompts.py": "tests/test_prompts.py",
}


@dataclass(frozen=True, slots=True)
class NewPlugin:
    """The values that are filled into the files of a new plugin.

    Attributes:
        name: The short name, for example `acme-vl`; see `short_name`.
        model_type: The first model type.
        architecture: The architecture, as in `architectures` of the checkpoint's config.json.
        hf_id: The repository on the Hugging Face hub.
        placeholder: The string that represents an image in the prompt; `{index}` becomes its number.
        derived: The spec that was derived from a checkpoint, if the plugin is written for one.
    """

    name: str
    model_type: str
    architecture: str
    hf_id: str
    placeholder: str
    derived: ModelSpec | None = None

    @property
    def distribution(self) -> str:
        """The name of the distribution, for installers."""
        return _PREFIX + self.name

    @property
    def package(self) -> str:
        """The name of the package, for imports."""
        return self.distribution.replace("-", "_")


def short_name(text: str) -> str:
    """The short name of a plugin, from any spelling.

    >>> short_name("vlm_run_acme_VL"), short_name("Acme VL")
    ('acme-vl', 'acme-vl')

    Raises:
        VlmRunError: `text` has characters other than letters, digits and separators.
    """
    name = re.sub(r"[-_.\s]+", "-", text.strip().lower()).removeprefix(_PREFIX)
    if not _NAME.fullmatch(name):
        raise VlmRunError(
            f"'{text}' cannot name a plugin",
            hint="Begin with a letter; use letters, digits and hyphens, for example acme-vl.",
        )
    return name


def from_checkpoint(name: str, directory: Path, hf_id: str, placeholder: str | None = None) -> NewPlugin:
    """The values of a plugin for a checkpoint, derived as `vlm-run-auto` derives them.

    Args:
        name: The short name of the plugin.
        directory: The checkpoint directory; weights are not needed.
        hf_id: The repository on the Hugging Face hub.
        placeholder: The placeholder of an image, if the chat template does not write one itself.

    Raises:
        VlmRunError: The checkpoint lacks a chat template, or a field cannot be derived.
    """
    spec = derive(read_config(directory), directory, placeholder)
    if not Path(spec.chat_template).is_file():
        raise VlmRunError(
            f"the checkpoint {directory} has no chat template",
            hint="Save the model's template there as chat_template.jinja.",
        )
    return NewPlugin(name, name, spec.architecture, hf_id, spec.image_placeholder, spec)


def write(plugin: NewPlugin, directory: Path) -> list[Path]:
    """Write the files of a plugin into a directory that is empty or does not exist yet.

    Returns:
        The files, in the order written.

    Raises:
        VlmRunError: The directory is not empty or cannot be written, or a value is invalid.
    """
    _check(plugin)
    contents = {
        directory / target.format(package=plugin.package, name=plugin.name): _content(source, plugin)
        for source, target in _FILES.items()
    }
    try:
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise VlmRunError(
                f"{directory} exists and is not empty", hint="Choose another directory with --directory."
            )
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
    except OSError as error:
        raise VlmRunError(f"{directory} cannot be written: {error.strerror or error}") from error
    return list(contents)


def _check(plugin: NewPlugin) -> None:
    try:
        ModelSpec(
            model_type=plugin.model_type,
            architecture=plugin.architecture,
            chat_template="",
            image_placeholder=plugin.placeholder,
        )
    except ValidationError as error:
        fault = error.errors()[0]
        raise VlmRunError(
            f"the {str(fault['loc'][0]).replace('_', ' ')} '{fault['input']}' {_reason(fault['msg'])}"
        ) from None
    if not plugin.architecture.isidentifier():
        raise VlmRunError(
            f"the architecture '{plugin.architecture}' is not a class name",
            hint="Copy it from 'architectures' in the checkpoint's config.json.",
        )
    if not _HF_ID.fullmatch(plugin.hf_id):
        raise VlmRunError(
            f"'{plugin.hf_id}' is not a repository on the Hugging Face hub", hint="Write it as owner/name."
        )
    if not plugin.placeholder.strip():
        raise VlmRunError(
            "the placeholder is empty",
            hint="Give the string that represents an image in the prompt, for example <image>.",
        )


def _reason(message: str) -> str:
    return message.removeprefix("Value error, ")


def _content(source: str, plugin: NewPlugin) -> str:
    if source == "chat-template.jinja" and plugin.derived is not None:
        return template_source(Path(plugin.derived.chat_template))
    return _render(source, plugin)


def _expected_prompt(spec: ModelSpec) -> str:
    """The prompt of the written test, which the derived spec renders."""
    conversation = Conversation.from_query("What is this?", images=["image.png"])
    return defaults.render_prompt(spec, conversation)


def _template_variables(spec: ModelSpec) -> dict[str, Any]:
    """The variables that the chat template uses, without BOS and EOS, which have fields of their own."""
    source = template_source(Path(spec.chat_template))
    return {
        name: value
        for name, value in spec.template_kwargs.items()
        if name not in ("bos_token", "eos_token") and name in source
    }


def _render(source: str, plugin: NewPlugin) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # Not Jinja's default delimiters, since one of the files is a Jinja template itself.
    environment = Environment(
        loader=PackageLoader("vlm_run.scaffold", "files"),
        variable_start_string="<<",
        variable_end_string=">>",
        block_start_string="<%",
        block_end_string="%>",
        comment_start_string="<#",
        comment_end_string="#>",
        trim_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
        autoescape=False,
    )
    environment.filters |= {"quoted": _quoted, "python": repr}
    return environment.get_template(f"{source}.txt").render(
        plugin=plugin,
        numbered="{index}" in plugin.placeholder,
        first=plugin.placeholder.replace("{index}", "1"),
        spec=plugin.derived,
        expected=None if plugin.derived is None else _expected_prompt(plugin.derived),
        variables=None if plugin.derived is None else _template_variables(plugin.derived),
    )


def _quoted(text: str) -> str:
    """A string literal that is valid in both Python and TOML."""
    return json.dumps(text, ensure_ascii=False)
