"""The conformance suite as pytest tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlm_run.errors import VlmRunError
from vlm_run.testing.subject import CheckSkipped, find_plugin
from vlm_run.testing.suite import MODEL_CHECKS, PLUGIN_CHECKS, checkpoints_of, model_of


def conformance_tests(distribution: str) -> Any:
    """A parametrized test function that runs every check on an installed plugin.

    For example, in a plugin's tests:

        from vlm_run.testing import conformance_tests

        test_conformance = conformance_tests("vlm-run-acme-vl")

    Each check of each model type is a separate test, such as
    `test_conformance[acme-vl-7b-conversations_render]`. Checkpoint directories come from the option
    `--vlm-run-checkpoint MODEL_TYPE=DIRECTORY`, or from a fixture `vlm_run_checkpoints` in the
    plugin's conftest.py, which returns them by model type.

    Args:
        distribution: The name of the plugin's distribution.

    Raises:
        PluginError: The plugin is not installed, or could not be loaded.
    """
    import pytest

    subject = find_plugin(distribution)
    cases = [pytest.param(check, None, id=check.__name__) for check in PLUGIN_CHECKS] + [
        pytest.param(check, spec, id=f"{spec.model_type}-{check.__name__}")
        for spec in subject.plugin.specs
        for check in MODEL_CHECKS
    ]

    @pytest.mark.parametrize(("check", "spec"), cases)
    def test_conformance(check: Any, spec: Any, vlm_run_checkpoints: dict[str, Path]) -> None:
        __tracebackhide__ = True
        directories = checkpoints_of(subject, vlm_run_checkpoints)
        try:
            check(subject if spec is None else model_of(subject, spec, directories))
        except CheckSkipped as reason:
            pytest.skip(str(reason))
        except VlmRunError as error:
            # The message is for the plugin's author; the traceback through the suite would not help.
            pytest.fail(str(error), pytrace=False)

    return test_conformance
