"""The conformance suite, for plugin authors.

`conformance_tests("vlm-run-acme-vl")` returns a test function for pytest; `vlm-run plugin check` runs
the same checks without it. `with_adapter` tries another chat template on a running engine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlm_run.engine.other_adapter import with_adapter
    from vlm_run.testing.conformance import conformance_tests

__all__ = ["conformance_tests", "with_adapter"]

_MODULES = {
    "conformance_tests": "vlm_run.testing.conformance",
    "with_adapter": "vlm_run.engine.other_adapter",
}


def __getattr__(name: str) -> Any:
    # Imported when asked for: `vlm-run plugins` needs neither.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
