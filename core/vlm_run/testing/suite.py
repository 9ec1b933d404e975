"""The conformance suite: the list of all checks, and how to run them without pytest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from vlm_run.errors import PluginError, VlmRunError
from vlm_run.specs import ModelSpec, canonical
from vlm_run.testing import (
    checkpoint_checks,
    engine_checks,
    image_checks,
    prompt_checks,
    spec_checks,
)
from vlm_run.testing.subject import (
    CheckSkipped,
    ModelSubject,
    PluginSubject,
)

PluginCheck: TypeAlias = Callable[[PluginSubject], str | None]
"""A check of a plugin. Returns a detail to report or None; raises if the check fails."""
ModelCheck: TypeAlias = Callable[[ModelSubject], str | None]
"""A check of one model type. Returns a detail to report or None; raises if the check fails."""

PLUGIN_CHECKS: tuple[PluginCheck, ...] = (
    spec_checks.specs_are_valid_and_unique,
    spec_checks.contract_is_stated,
    spec_checks.import_is_light,
)
MODEL_CHECKS: tuple[ModelCheck, ...] = (
    spec_checks.checkpoint_tells_its_model_type,
    prompt_checks.conversations_render,
    prompt_checks.every_text_is_in_the_prompt,
    prompt_checks.one_placeholder_for_each_image,
    prompt_checks.one_placeholder_for_each_video,
    prompt_checks.rendering_is_deterministic,
    prompt_checks.control_tokens_in_a_text_stay_text,
    image_checks.ordinary_images_work,
    image_checks.odd_images_work_or_are_refused,
    image_checks.images_have_a_token_count,
    image_checks.boxes_have_a_scale,
    engine_checks.limits_reach_the_engine,
    engine_checks.engine_options_are_known_to_vllm,
    engine_checks.sampling_params_are_known_to_vllm,
    engine_checks.registers_with_vllm_twice,
    engine_checks.vllm_knows_the_architecture,
    checkpoint_checks.prompt_agrees_with_checkpoint,
    checkpoint_checks.prompt_begins_with_one_bos,
    checkpoint_checks.tokenizer_keeps_text_as_text,
    checkpoint_checks.counts_agree_with_vllm,
    checkpoint_checks.video_counts_agree_with_vllm,
)


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one check.

    Attributes:
        check: The name of the check.
        model_type: The model type; None for a check of the plugin as a whole.
        outcome: Whether it passed, failed or was skipped.
        detail: Why it failed or was skipped, or a detail of a passed check; may be empty.
    """

    check: str
    model_type: str | None
    outcome: Literal["passed", "failed", "skipped"]
    detail: str


def run_suite(
    subject: PluginSubject, checkpoints: Mapping[str, Path], *, only: str | None = None
) -> Iterator[Result]:
    """Run the checks on a plugin and on each of its model types.

    Args:
        subject: The plugin, from `find_plugin`.
        checkpoints: Checkpoint directories by model type.
        only: The name of the one check to run; None for all.

    Raises:
        PluginError: `checkpoints` names a model type that the plugin does not serve.
    """
    directories = checkpoints_of(subject, checkpoints)
    for plugin_check in PLUGIN_CHECKS:
        if only in (None, plugin_check.__name__):
            yield _result(plugin_check, subject, None)
    for model in models(subject, directories):
        for model_check in MODEL_CHECKS:
            if only in (None, model_check.__name__):
                yield _result(model_check, model, model.spec.model_type)


def models(subject: PluginSubject, directories: Mapping[str, Path]) -> Iterator[ModelSubject]:
    """The model types of a plugin, each with its checkpoint directory if there is one."""
    for spec in subject.plugin.specs:
        yield model_of(subject, spec, directories)


def model_of(subject: PluginSubject, spec: ModelSpec, directories: Mapping[str, Path]) -> ModelSubject:
    """One model type of a plugin, with the checkpoint directory given for it or shipped with the plugin."""
    shipped = None if spec.checkpoint is None else Path(spec.checkpoint)
    return ModelSubject(subject.plugins, subject.plugin, spec, directories.get(spec.model_type, shipped))


def checkpoints_of(subject: PluginSubject, checkpoints: Mapping[str, Path]) -> dict[str, Path]:
    """The directories by model type as the plugin's specs spell it.

    Raises:
        PluginError: The plugin does not serve one of the model types.
    """
    known = {canonical(spec.model_type): spec.model_type for spec in subject.plugin.specs}
    for name in checkpoints:
        if canonical(name) not in known:
            raise PluginError(
                f"{subject.plugin.name} does not serve the model type '{name}'",
                hint=f"It serves: {', '.join(known.values())}.",
            )
    return {known[canonical(name)]: Path(directory) for name, directory in checkpoints.items()}


def _result(
    check: Callable[[PluginSubject], str | None] | Callable[[ModelSubject], str | None],
    subject: PluginSubject | ModelSubject,
    model_type: str | None,
) -> Result:
    name = check.__name__
    try:
        # A check of a plugin is called with a plugin, and one of a model type with a model type.
        return Result(name, model_type, "passed", check(subject) or "")  # type: ignore[arg-type]
    except CheckSkipped as reason:
        return Result(name, model_type, "skipped", str(reason))
    except VlmRunError as error:
        return Result(name, model_type, "failed", str(error))
    except Exception as error:
        return Result(name, model_type, "failed", f"{type(error).__name__}: {error}")
