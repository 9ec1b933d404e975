"""The conformance suite, for plugin authors.

`conformance_tests("vlm-run-acme-vl")` returns a test function for pytest; `vlm-run plugin check` runs
the same checks without it. `with_adapter` tries another chat template on a running engine.
"""

from __future__ import annotations

from vlm_run.engine.other_adapter import with_adapter
from vlm_run.testing.conformance import conformance_tests

__all__ = ["conformance_tests", "with_adapter"]
