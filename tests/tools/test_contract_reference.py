"""docs/contract.md says what the contract's source says."""

from __future__ import annotations

import doctest
import inspect
import runpy
from pathlib import Path
from typing import Any

import pytest

from vlm_run import hookspecs
from vlm_run.specs import ModelSpec

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tool() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "tools/contract_reference.py"))


@pytest.fixture(scope="module")
def page() -> str:
    return (ROOT / "docs/contract.md").read_text()


def test_the_page_is_up_to_date(tool: dict[str, Any], page: str) -> None:
    assert page == tool["reference"](), "run python tools/contract_reference.py"


def test_every_hook_stands_there_with_its_signature(tool: dict[str, Any], page: str) -> None:
    hooks = dict(tool["hooks"]())
    assert set(hooks) == {
        "model_specs",
        "spec_from_checkpoint",
        "render_prompt",
        "preprocess_image",
        "placeholder",
        "count_image_tokens",
        "count_video_tokens",
        "engine_kwargs",
        "register_with_vllm",
    }
    for name, hook in hooks.items():
        assert f"### `{name}`\n\n```python\n{tool['signature'](hook)}\n```" in page
        for argument in inspect.signature(hook).parameters:
            assert f"{argument}: " in tool["signature"](hook)


def test_every_field_of_a_spec_stands_there_and_is_explained(page: str) -> None:
    of_spec = page.partition("### `Limits`")[0].splitlines()
    for name in ModelSpec.model_fields:
        (row,) = [line for line in of_spec if line.startswith(f"| `{name}` |")]
        assert not row.endswith("|  |"), f"{name} has no docstring"


def test_its_version_is_the_contracts(page: str) -> None:
    assert f"# The contract, version {hookspecs.CONTRACT_VERSION}\n" in page


def test_the_examples_in_it_work() -> None:
    assert doctest.testmod(hookspecs).failed == 0
