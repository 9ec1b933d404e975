"""Engine options: checked against vLLM's own `EngineArgs`, then handed to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vlm_run.engine.versions import check_serves, vllm_version
from vlm_run.engine.vllm_internals import known_architectures
from vlm_run.errors import EngineError, did_you_mean

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.engine.arg_utils import AsyncEngineArgs

    from vlm_run.adapter import Adapter


def engine_args(adapter: Adapter, options: Mapping[str, Any]) -> AsyncEngineArgs:
    """vLLM's engine arguments for an adapter, with the caller's options on top.

    Raises:
        EngineError: vLLM is missing or out of range, or an option is unknown.
    """
    check_serves(adapter.spec)
    from vllm.engine.arg_utils import AsyncEngineArgs

    kwargs = adapter.engine_kwargs(**options)
    known = option_names()
    for name in kwargs:
        if name not in known:
            raise EngineError(
                f"vLLM has no engine option '{name}'",
                hint=did_you_mean(name, known) or "`vllm serve --help=all` lists them.",
            )
    try:
        return AsyncEngineArgs(**kwargs)
    except OSError as error:  # with HF_HUB_OFFLINE vLLM looks for the checkpoint here already
        raise _no_checkpoint(adapter, error) from error
    except (TypeError, ValueError) as error:
        raise EngineError(f"vLLM refuses the engine options: {_first_line(error)}") from error


def option_names() -> list[str]:
    """The names of vLLM's engine options. Needs vLLM."""
    from vllm.engine.arg_utils import AsyncEngineArgs

    return [field.name for field in dataclasses.fields(AsyncEngineArgs)]


def vllm_config(adapter: Adapter, options: Mapping[str, Any]) -> VllmConfig:
    """The full vLLM configuration for an adapter. Reads the checkpoint's `config.json`.

    Raises:
        EngineError: As `engine_args`, or vLLM refuses the configuration.
    """
    arguments = engine_args(adapter, options)
    from vllm.usage.usage_lib import UsageContext

    try:
        return arguments.create_engine_config(UsageContext.LLM_CLASS)
    except (OSError, ValueError) as error:
        raise _no_checkpoint(adapter, error) from error


def _no_checkpoint(adapter: Adapter, error: Exception) -> EngineError:
    if "trust_remote_code" in str(error):  # transformers' advice
        return EngineError(
            f"the checkpoint {adapter.source} needs Python code of its own",
            hint="It runs, with your rights, only with --trust-remote-code (in Python: "
            "trust_remote_code=True). Add it if you trust the author.",
        )
    architecture = adapter.spec.architecture
    if adapter.spec.derived_from and architecture not in known_architectures():
        return EngineError(
            f"vLLM {vllm_version()} has no architecture '{architecture}', which {adapter.source} needs, and "
            f"cannot run it through transformers: {_first_line(error)}",
            hint="Upgrade vLLM and transformers, add --trust-remote-code if the checkpoint contains code "
            "that you trust, or write a plugin that registers the architecture (docs/plugin-authors.md).",
        )
    return EngineError(
        f"vLLM cannot configure '{adapter.spec.model_type}' from {adapter.source}: {_first_line(error)}",
        hint="Give the directory with the weights with --model (in Python: checkpoint=).",
    )


def _first_line(error: Exception) -> str:
    # pydantic puts the count of errors first and the cause last.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = next(
        (line for line in lines if line.startswith("Value error")), lines[0] if lines else "no reason"
    )
    return first.rstrip(".")
