"""Locates a repository in the Hugging Face cache, and downloads its configuration files.

`huggingface_hub`, which is slow to import, is needed only for the download.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal, TypeAlias

Hub: TypeAlias = Literal["huggingface", "modelscope"]

_CONFIGURATION = ["*.json", "*.jinja", "*.model", "*.txt"]
_WEIGHTS = ["*.bin.index.json", "*/*"]


def snapshot(repository: str) -> Path | None:
    """The cached directory of a repository's main revision, which may be incomplete; None if not cached.

    >>> snapshot("nobody/has-such-a-repository")
    """
    directory = _cache() / f"models--{repository.replace('/', '--')}"
    try:
        revision = (directory / "refs/main").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):  # not cached, or a name that is not valid for a file
        return None
    found = directory / "snapshots" / revision
    return found if revision and found.is_dir() else None


def is_repository(name: str) -> bool:
    """Whether a name has the form of a repository on the hub.

    >>> is_repository("google/gemma-3-4b-it"), is_repository("./gemma")
    (True, False)
    """
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) is not None


def configuration(repository: str) -> Path | None:
    """A directory with the configuration, tokenizer and template files of a repository, not its weights.

    They are taken from the cache, or downloaded to it unless the environment says `HF_HUB_OFFLINE`.

    Returns:
        The directory; None if the repository cannot be read.
    """
    cached = snapshot(repository)
    if cached is not None and (cached / "config.json").is_file():
        return cached
    try:
        from huggingface_hub import snapshot_download

        found = Path(snapshot_download(repository, allow_patterns=_CONFIGURATION, ignore_patterns=_WEIGHTS))
    except Exception:  # no library, no network, no such repository, no permission
        return None
    return found if (found / "config.json").is_file() else None


def _cache() -> Path:
    # As `huggingface_hub.constants` reads the environment.
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or Path(home) / "hub"
    return Path(os.path.expandvars(cache)).expanduser()
