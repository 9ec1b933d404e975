"""Finds the spec of a checkpoint directory: one that a plugin lists, or one that a plugin derives."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pluggy

from vlm_run.checkpoints.chat_template_file import find_chat_template, template_source
from vlm_run.checkpoints.files import lookup, read_json
from vlm_run.errors import UnknownModelError, VlmRunError
from vlm_run.plugins.discovery import Plugin, Plugins, PluginWarning, resolve
from vlm_run.specs import ModelSpec


def model_type_of(directory: Path, plugins: Plugins) -> tuple[ModelSpec, Plugin] | None:
    """The model type whose architecture and facts fit a checkpoint's `config.json` best.

    Returns:
        Its spec and plugin, or None if no plugin lists a model type that fits.

    Raises:
        UnknownModelError: Several model types fit equally well, or a file cannot be read.
    """
    candidates = best_fits(read_config(directory), lambda: _chat_template(directory), plugins.models())
    if not candidates:
        return None
    if len(candidates) > 1:
        names = ", ".join(spec.model_type for spec, _ in candidates)
        raise UnknownModelError(
            f"the checkpoint {directory} could be of several model types: {names}",
            hint="Give one of them, and the directory with --model (in Python: checkpoint=).",
        )
    return candidates[0]


def best_fits(
    config: Mapping[str, Any],
    chat_template: Callable[[], str],
    models: Iterable[tuple[ModelSpec, Plugin]],
) -> list[tuple[ModelSpec, Plugin]]:
    """The model types whose architecture and facts fit a checkpoint best, each with its plugin.

    Args:
        config: The checkpoint's `config.json`.
        chat_template: Returns the source of its chat template; called if several model types fit its config.
        models: The model types to compare, each with its plugin.
    """
    architectures = config.get("architectures") or []
    fits = [
        (fit, spec, plugin)
        for spec, plugin in models
        if spec.architecture in architectures and (fit := _fit(spec, config)) is not None
    ]
    best = max((fit for fit, _, _ in fits), default=0)
    candidates = [(spec, plugin) for fit, spec, plugin in fits if fit == best]
    return candidates if len(candidates) < 2 else _of_template(candidates, chat_template())


def read_config(directory: Path) -> dict[str, Any]:
    """A checkpoint's `config.json`.

    Raises:
        UnknownModelError: It is not the configuration of a model.
    """
    try:
        config = read_json(directory / "config.json")
        architectures = config.get("architectures") or []
        if not (isinstance(architectures, list) and all(isinstance(name, str) for name in architectures)):
            raise ValueError("'architectures' is not a list of names")
    except ValueError as error:
        raise UnknownModelError(
            f"{directory / 'config.json'} is not a model configuration: {error}"
        ) from None
    return config


def _fit(spec: ModelSpec, config: Mapping[str, Any]) -> int | None:
    """How many of the spec's facts a config confirms; None if it contradicts one.

    Published configs leave out what equals their class's default, so a missing key decides nothing.
    """
    if config.get("_name_or_path") and config["_name_or_path"] in (
        spec.hf_id,
        spec.modelscope_id,
        *spec.quantized,
    ):
        return len(spec.config_match) + 1
    found = {key: value for key in spec.config_match if (value := lookup(config, key)) is not None}
    if any(value != spec.config_match[key] for key, value in found.items()):
        return None
    return len(found)


def _of_template(candidates: list[tuple[ModelSpec, Plugin]], template: str) -> list[tuple[ModelSpec, Plugin]]:
    """The candidates whose `template_match` is in the checkpoint's chat template, else those without one.

    None if all have one that the template lacks: it is the template of another model.
    """
    marked = [pair for pair in candidates if pair[0].template_match and pair[0].template_match in template]
    unmarked = [pair for pair in candidates if not pair[0].template_match]
    return marked or unmarked or ([] if template else candidates)


def _chat_template(directory: Path) -> str:
    """The source of a checkpoint's chat template; empty if it has none that can be read."""
    try:
        file = find_chat_template(directory)
        return "" if file is None else template_source(file)
    except ValueError:
        return ""


def derived_spec(directory: Path, plugins: Plugins) -> tuple[ModelSpec, Plugin] | None:
    """The spec that a plugin derives from a checkpoint by its hook `spec_from_checkpoint`.

    A family's plugin is asked before a general one, which implements the hook with `trylast`. A plugin
    whose hook fails is reported by a `PluginWarning`, and the next one is asked.

    Raises:
        UnknownModelError: `config.json` is not the configuration of a model.
        VlmRunError: A plugin recognizes the checkpoint, but cannot serve it.
    """
    config = read_config(directory)
    for plugin in _in_order(plugins):
        try:
            spec = plugins.hook("spec_from_checkpoint", plugin.module)(config=config, folder=directory)
            if spec is not None:
                return resolve(spec, plugin.module, plugin.name), plugin
        except VlmRunError:
            raise
        except (Exception, SystemExit) as error:
            cause = f"{type(error).__name__}: {error}"
            warnings.warn(
                f"plugin {plugin.name}: the hook 'spec_from_checkpoint' failed for {directory} with {cause}",
                PluginWarning,
                stacklevel=2,
            )
    return None


def _in_order(plugins: Plugins) -> list[Plugin]:
    """The plugins that implement `spec_from_checkpoint`, those with `trylast` last."""
    caller: pluggy.HookCaller = plugins.manager.hook.spec_from_checkpoint
    last = {id(found.plugin): found.trylast for found in caller.get_hookimpls()}
    asked = [plugin for plugin in plugins.healthy if id(plugin.module) in last]
    return sorted(asked, key=lambda plugin: last[id(plugin.module)])
