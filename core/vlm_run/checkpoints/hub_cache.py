"""Locates a repository in the Hugging Face cache without `huggingface_hub`, which is slow to import."""

from __future__ import annotations

import os
from pathlib import Path


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


def _cache() -> Path:
    # As `huggingface_hub.constants` reads the environment.
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or Path(home) / "hub"
    return Path(os.path.expandvars(cache)).expanduser()
