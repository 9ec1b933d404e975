"""A request in a form for the result file: valid JSON of moderate size."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from typing import Any

from vlm_run.request import Sampling

_MAX_DEPTH = 50
_MAX_SOURCE = 1000
_BASE64 = re.compile(r"(?:data:|[A-Za-z0-9+/_=-]{200})")


def to_record(value: Any) -> Any:
    """Return a value as JSON can hold it.

    Bytes and long base64 text are replaced by their size and hash, infinities and NaN by null, and what
    is nested more than 50 levels deep by an ellipsis.

    >>> to_record({"query": "How many?", "top_p": float("nan")})
    {'query': 'How many?', 'top_p': None}
    """
    return _to_record(value, 0)


def _to_record(value: Any, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        return "…"
    if isinstance(value, Mapping):
        return {str(key): _to_record(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_record(item, depth + 1) for item in value]
    if isinstance(value, bytes):
        return {"bytes": len(value), "blake2b": _digest(value)}
    if isinstance(value, Sampling):
        return value.model_dump(exclude_defaults=True)
    if isinstance(value, str) and len(value) > _MAX_SOURCE and _BASE64.match(value):
        return {"characters": len(value), "blake2b": _digest(value.encode("utf-8", "surrogatepass"))}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (str, int, float)):
        return value
    return str(value)


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
