"""A checkpoint's JSON files and chat template, read without a model library."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; an empty one if the file does not exist.

    Raises:
        ValueError: The file cannot be read, or does not contain a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} does not contain a JSON object")
    return content


def lookup(config: Any, dotted: str) -> Any:
    """The value at a dotted key, in which numbers index lists; None if there is none.

    >>> lookup({"rope_scaling": {"long_factor": [1.05, 1.03]}}, "rope_scaling.long_factor.0")
    1.05
    """
    for key in dotted.split("."):
        if isinstance(config, Mapping):
            config = config.get(key)
        elif isinstance(config, list) and key.isdecimal() and int(key) < len(config):
            config = config[int(key)]
        else:
            return None
    return config
