"""The conformance suite, for plugin authors.

`conformance_tests("vlm-run-acme-vl")` returns a test function for pytest; `vlm-run plugin check` runs
the same checks without it.
"""

from __future__ import annotations

from vlm_run.testing.conformance import conformance_tests

__all__ = ["conformance_tests"]
