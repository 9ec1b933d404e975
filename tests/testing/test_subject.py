"""Finding the plugin to check."""

from __future__ import annotations

import pytest

from vlm_run.errors import PluginError
from vlm_run.testing.subject import find_plugin


@pytest.mark.parametrize("name", ["vlm-run-demo", "vlm_run_demo", "demo", "Demo"])
def test_a_plugin_is_found_by_any_spelling_of_its_name(name: str) -> None:
    assert find_plugin(name).plugin.name == "vlm-run-demo"


def test_a_plugin_that_is_not_installed_is_answered_with_the_installed_ones() -> None:
    with pytest.raises(PluginError, match=r"the plugin nobody is not installed\. Installed: .*vlm-run-demo"):
        find_plugin("nobody")
