"""Checks of the hooks `engine_kwargs` and `register_with_vllm`."""

from __future__ import annotations

from importlib.util import find_spec

from vlm_run.errors import EngineError, did_you_mean
from vlm_run.request import Sampling
from vlm_run.specs import Limits
from vlm_run.testing.subject import CheckFailed, CheckSkipped, ModelSubject

_LIMITS = Limits(max_images=2, max_model_len=2048)


def limits_reach_the_engine(subject: ModelSubject) -> None:
    """The user's limits on a request are in the engine options."""
    kwargs = subject.adapter(_LIMITS).engine_kwargs()
    if kwargs.get("max_model_len") != _LIMITS.max_model_len:
        raise CheckFailed(
            f"max_model_len is {kwargs.get('max_model_len')} although the user set {_LIMITS.max_model_len}",
            hint="In `engine_kwargs`, apply `limits`.",
        )
    images = (kwargs.get("limit_mm_per_prompt") or {}).get("image")
    if images != _LIMITS.max_images:
        raise CheckFailed(
            f"limit_mm_per_prompt allows {images} images although the user set {_LIMITS.max_images}",
            hint="In `engine_kwargs`, apply `limits`.",
        )


def engine_options_are_known_to_vllm(subject: ModelSubject) -> None:
    """Every engine option is a field of vLLM's `EngineArgs`."""
    _need_vllm(subject)
    from vlm_run.engine.arguments import option_names

    known = option_names()
    for name in subject.adapter().engine_kwargs():
        if name not in known:
            raise CheckFailed(f"vLLM has no engine option '{name}'", hint=did_you_mean(name, known))


def sampling_params_are_known_to_vllm(subject: ModelSubject) -> str | None:
    """Every entry of `sampling_params` is a field of vLLM's `SamplingParams` that requests do not have."""
    params = subject.spec.sampling_params
    if not params:
        return "no `sampling_params`"
    if own := [name for name in params if name in Sampling.model_fields]:
        raise CheckFailed(f"`sampling_params` has '{own[0]}', which each request sets itself")
    _need_vllm(subject)
    from vlm_run.engine.sampling import param_names

    known = param_names()
    for name in params:
        if name not in known:
            raise CheckFailed(f"vLLM has no sampling parameter '{name}'", hint=did_you_mean(name, known))
    return None


def registers_with_vllm_twice(subject: ModelSubject) -> str | None:
    """`register_with_vllm` works, also when called twice in one process."""
    if not subject.implements("register_with_vllm"):
        return "registers nothing"
    _need_vllm(subject)
    _register(subject, "")
    _register(subject, " when called again")
    return None


def vllm_knows_the_architecture(subject: ModelSubject) -> str:
    """The installed vLLM has the spec's architecture, built in or registered by the plugin."""
    _need_vllm(subject)
    from vlm_run.engine.versions import vllm_version
    from vlm_run.engine.vllm_internals import known_architectures

    if subject.implements("register_with_vllm"):
        _register(subject, "")
    name = subject.spec.architecture
    if name not in known_architectures():
        # Not a failure: the suite must also run with a vLLM version that the plugin does not support.
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
