"""For plugin authors: the conformance suite.

`conformance_tests("vlm-run-acme-vl")` is a test function for pytest; `vlm-run plugin check` runs
the same checks without it.
"""

from __future__ import annotations

from vlm_run.testing.conformance import conformance_tests

__all__ = ["conformance_tests"]
