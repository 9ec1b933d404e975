"""Where the Hugging Face cache keeps a repository, found without its library, which takes long to import."""

from __future__ import annotations

import os
from pathlib import Path


def snapshot(repository: str) -> Path | None:
    """The folder of what is cached of a repository's main revision, which may be a part; None if nothing is.

    >>> snapshot("nobody/has-such-a-repository")
    """
    folder = _cache() / f"models--{repository.replace('/', '--')}"
    try:
        revision = (folder / "refs/main").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):  # none, or a name that no file can have
        return None
    found = folder / "snapshots" / revision
    return found if revision and found.is_dir() else None


def _cache() -> Path:
    # As `huggingface_hub.constants` reads the environment.
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or Path(home) / "hub"
    return Path(os.path.expandvars(cache)).expanduser()
