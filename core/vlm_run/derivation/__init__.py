"""Derives the spec of a model from the files of its checkpoint, without remote code.

Used by the general plugin `vlm-run-auto` and by `vlm-run plugin new --from-checkpoint`.
"""

from __future__ import annotations

from vlm_run.derivation.placeholder import PlaceholderUnknownError
from vlm_run.derivation.spec import derive, takes_images

__all__ = ["PlaceholderUnknownError", "derive", "takes_images"]
