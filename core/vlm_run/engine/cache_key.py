"""Keys of images and videos in vLLM's caches."""

from __future__ import annotations


def cache_key(*parts: bytes) -> str:
    """A key that is the same in every process for the same bytes, one part after the other."""
    from blake3 import blake3  # a dependency of vLLM

    digest = blake3()
    for part in parts:
        digest.update(part)
    return str(digest.hexdigest())
