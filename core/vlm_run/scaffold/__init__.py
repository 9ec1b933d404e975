"""A new plugin: a complete package, written from the files in the folder `files`."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from vlm_run.errors import VlmRunError
from vlm_run.specs import ModelSpec

_PREFIX = "vlm-run-"
_NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
_HF_ID = re.compile(r"[\w.-]+/[\w.-]+")

# What each file is rendered from, and where it goes in the new package.
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
    """What the files of a new plugin differ by.

    Attributes:
        name: Short name, as in `acme-vl`; see `short_name`.
        model_type: Its first model type.
        architecture: As in `architectures` of the checkpoint's config.json.
        hf_id: Repository on the Hugging Face hub.
        placeholder: What stands for a picture in the prompt; `{index}` becomes its number.
    """

    name: str
    model_type: str
    architecture: str
    hf_id: str
    placeholder: str

    @property
    def distribution(self) -> str:
        """What an installer calls it."""
        return _PREFIX + self.name

    @property
    def package(self) -> str:
        """What Python imports."""
        return self.distribution.replace("-", "_")


def short_name(text: str) -> str:
    """A plugin's short name, from any way to write it.

    >>> short_name("vlm_run_acme_VL"), short_name("Acme VL")
    ('acme-vl', 'acme-vl')

    Raises:
        VlmRunError: It has other characters than letters, digits and what may join them.
    """
    name = re.sub(r"[-_.\s]+", "-", text.strip().lower()).removeprefix(_PREFIX)
    if not _NAME.fullmatch(name):
        raise VlmRunError(
            f"'{text}' cannot name a plugin",
            hint="Begin with a letter; use letters, digits and hyphens, for example acme-vl.",
        )
    return name


def write(plugin: NewPlugin, folder: Path) -> list[Path]:
    """Write the plugin's files into a folder that is empty or does not exist yet.

    Returns:
        The files, in the order written.

    Raises:
        VlmRunError: The folder has something in it or cannot be written, or the plugin's facts
            are invalid.
    """
    _check(plugin)
    contents = {
        folder / target.format(package=plugin.package, name=plugin.name): _render(source, plugin)
        for source, target in _FILES.items()
    }
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise VlmRunError(
                f"{folder} exists and is not empty", hint="Choose another folder with --directory."
            )
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
    except OSError as error:
        raise VlmRunError(f"{folder} cannot be written: {error.strerror or error}") from error
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
            f"the architecture '{plugin.architecture}' is no class name",
            hint="It is what config.json of the checkpoint has under 'architectures'.",
        )
    if not _HF_ID.fullmatch(plugin.hf_id):
        raise VlmRunError(
            f"'{plugin.hf_id}' is no repository on the Hugging Face hub", hint="Write it as owner/name."
        )
    if not plugin.placeholder.strip():
        raise VlmRunError(
            "the placeholder is empty", hint="It is what stands for a picture, as <image> does."
        )


def _reason(message: str) -> str:
    return message.removeprefix("Value error, ")


def _render(source: str, plugin: NewPlugin) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # Not Jinja's own delimiters: one of the files is a Jinja template itself.
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
    environment.filters["quoted"] = _quoted
    return environment.get_template(f"{source}.txt").render(
        plugin=plugin,
        numbered="{index}" in plugin.placeholder,
        first=plugin.placeholder.replace("{index}", "1"),
    )


def _quoted(text: str) -> str:
    """A string as Python and TOML both write it."""
    return json.dumps(text, ensure_ascii=False)
