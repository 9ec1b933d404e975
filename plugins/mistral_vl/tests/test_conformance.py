"""The conformance suite."""

from vlm_run.testing import conformance_tests

test_conformance = conformance_tests("vlm-run-mistral-vl")
