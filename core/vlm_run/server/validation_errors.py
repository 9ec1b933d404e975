"""Pydantic's validation errors of a request on one line: the field at fault and what it should be."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from vlm_run.errors import printable

_Path: TypeAlias = tuple[str | int, ...]

_MAX_LENGTH = 500
# An error's location names types and validators beside fields and indices.
_FIELD = re.compile(r"[a-z_][a-z0-9_]*", re.ASCII)
_NO_FIELDS = frozenset(
    {"body", "str", "int", "float", "bool", "bytes", "list", "dict", "tuple", "set", "none"}
)
# The fields by which the members of a union of objects are told apart.
_TAGS = ("type", "role", "object")
_SHOULD_BE = "Input should be "


def describe(errors: Sequence[Any]) -> tuple[str, str | None]:
    """Describe why a request is malformed.

    Where a value may be of several types, there are errors for each of them. Those of a type that the
    value does not claim to be are left out, and of the others the deepest ones count: the type that they
    belong to fits best.

    Args:
        errors: As `pydantic.ValidationError.errors()` returns them, or plain strings.

    Returns:
        The description on one line, and the field at fault, as in `messages[0].content`; None if it is no
        single field.
    """
    known = [error for error in errors if isinstance(error, Mapping)]
    if not known:
        return printable("; ".join(map(str, errors)) or "the request is malformed", _MAX_LENGTH), None
    if known[0]["type"] == "json_invalid":
        reason = known[0].get("ctx", {}).get("error", known[0]["msg"])
        return f"the body is not valid JSON: {reason} at character {known[0]['loc'][-1]}", None
    meant = _of_claimed_types(known)
    # A missing field is the weaker sign of what was meant: the request may be of another kind.
    path = _path(max(meant, key=lambda error: (len(_path(error)), error["type"] != "missing")))
    name = _written(path)
    cause = printable(_joined([error["msg"] for error in meant if _path(error) == path]), _MAX_LENGTH)
    return (f"'{name}': {cause}", name) if name else (cause, None)


def _of_claimed_types(errors: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The errors without those of types that a value does not claim to be.

    A value that claims to be of none of the types keeps the errors of all.
    """
    others: defaultdict[_Path, set[tuple[Any, ...]]] = defaultdict(set)
    for error in errors:
        if error["loc"] and error["loc"][-1] in _TAGS:
            others[_path(error)[:-1]].add(error["loc"][:-1])
    for value, types in others.items():
        meant = [error for error in errors if not _is_below(error, types)]
        if any(_path(error)[: len(value)] == value and len(_path(error)) > len(value) for error in meant):
            errors = meant
    return list(errors)


def _is_below(error: Mapping[str, Any], types: set[tuple[Any, ...]]) -> bool:
    return any(error["loc"][:length] in types for length in range(len(error["loc"]) + 1))


def _path(error: Mapping[str, Any]) -> _Path:
    """The names of fields and the indices in an error's location."""
    return tuple(
        each
        for each in error["loc"]
        if isinstance(each, int) or (_FIELD.fullmatch(each) and each not in _NO_FIELDS)
    )


def _written(path: _Path) -> str:
    """A path in the form `messages[0].content`."""
    return "".join(f"[{each}]" if isinstance(each, int) else f".{each}" for each in path).removeprefix(".")


def _joined(messages: Sequence[str]) -> str:
    """Alternatives in one sentence."""
    distinct = list(dict.fromkeys(message.removeprefix("Value error, ") for message in messages))
    if all(message.startswith(_SHOULD_BE) for message in distinct):
        return "should be " + " or ".join(message.removeprefix(_SHOULD_BE) for message in distinct)
    return " or ".join(message[:1].lower() + message[1:] for message in distinct)
