"""Checks of what vLLM is told: the hooks `engine_kwargs` and `register_with_vllm`."""

from __future__ import annotations

import difflib
from importlib.util import find_spec

from vlm_run.errors import EngineError
from vlm_run.specs import Limits
from vlm_run.testing.subject import CheckFailed, CheckSkipped, ModelSubject

_LIMITS = Limits(max_images=2, max_model_len=2048)


def limits_reach_the_engine(subject: ModelSubject) -> None:
    """What a user allows a request is what the engine allows it."""
    kwargs = subject.adapter(_LIMITS).engine_kwargs()
    if kwargs.get("max_model_len") != _LIMITS.max_model_len:
        raise CheckFailed(
            f"max_model_len is {kwargs.get('max_model_len')} where a user set {_LIMITS.max_model_len}",
            hint="In `engine_kwargs`, apply `limits`.",
        )
    images = (kwargs.get("limit_mm_per_prompt") or {}).get("image")
    if images != _LIMITS.max_images:
        raise CheckFailed(
            f"limit_mm_per_prompt allows {images} images where a user set {_LIMITS.max_images}",
            hint="In `engine_kwargs`, apply `limits`.",
        )


def engine_options_are_known_to_vllm(subject: ModelSubject) -> None:
    """Every engine option is one that vLLM's `EngineArgs` has."""
    _need_vllm(subject)
    from vlm_run.engine.arguments import option_names

    known = option_names()
    for name in subject.adapter().engine_kwargs():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise CheckFailed(
                f"vLLM has no engine option '{name}'", hint=f"Did you mean '{near[0]}'?" if near else None
            )


def registers_with_vllm_twice(subject: ModelSubject) -> str | None:
    """`register_with_vllm` works, and once more in the same process."""
    if not subject.implements("register_with_vllm"):
        return "registers nothing"
    _need_vllm(subject)
    _register(subject, "")
    _register(subject, " when it is called again")
    return None


def vllm_knows_the_architecture(subject: ModelSubject) -> str:
    """The installed vLLM has the spec's architecture, of itself or from the plugin."""
    _need_vllm(subject)
    from vlm_run.engine.versions import known_architectures, vllm_version

    if subject.implements("register_with_vllm"):
        _register(subject, "")
    name = subject.spec.architecture
    if name not in known_architectures():
        # Not a failure: the suite must run where a plugin's vLLM is not the one installed.
        raise CheckSkipped(f"vLLM {vllm_version()} has no {name}, and the plugin registers none")
    return name


def _need_vllm(subject: ModelSubject) -> None:
    if find_spec("vllm") is None:
        raise CheckSkipped("vLLM is not installed")
    from vlm_run.engine.versions import check_serves

    try:
        check_serves(subject.spec)
    except EngineError as error:
        raise CheckSkipped(error.cause) from None


def _register(subject: ModelSubject, when: str) -> None:
    try:
        subject.plugins.hook("register_with_vllm", subject.plugin.module)()
    except Exception as error:
        raise CheckFailed(f"`register_with_vllm` fails{when}: {type(error).__name__}: {error}") from error
