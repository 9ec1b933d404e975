"""Where a checkpoint keeps its chat template, and its Jinja source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlm_run.checkpoints.files import read_json

# In the order in which transformers' `ProcessorMixin.from_pretrained` and tokenizers look for it.
_NAMES = ("chat_template.jinja", "chat_template.json", "processor_config.json", "tokenizer_config.json")


def find_chat_template(directory: Path) -> Path | None:
    """The file of a checkpoint directory that holds its chat template; None if none does.

    Raises:
        ValueError: A JSON file cannot be read.
    """
    return next((directory / name for name in _NAMES if template_source(directory / name)), None)


def template_source(file: Path) -> str:
    """The Jinja source in a file: the whole of it, or the entry `chat_template` of a JSON file.

    Of named templates it is the one called `default`. Empty if the file has none or does not exist.

    Raises:
        ValueError: A JSON file cannot be read.
    """
    if file.suffix != ".json":
        return file.read_text(encoding="utf-8") if file.is_file() else ""
    return _default(read_json(file).get("chat_template"))


def _default(template: Any) -> str:
    if isinstance(template, str):
        return template
    if isinstance(template, list):  # [{"name": …, "template": …}], as tokenizer_config.json has them
        template = {each.get("name"): each.get("template") for each in template if isinstance(each, dict)}
    named = template.get("default") if isinstance(template, dict) else None
    return named if isinstance(named, str) else ""
