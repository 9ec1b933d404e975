"""From a model type, or a checkpoint folder, to its adapter."""

from __future__ import annotations

import difflib
import json
import os.path
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlm_run.adapter import Adapter
from vlm_run.errors import TemplateError, UnknownModelError
from vlm_run.plugins.discovery import Plugin, Plugins, installed_plugins
from vlm_run.specs import Limits, ModelSpec, canonical


class Registry:
    """The model types of all installed plugins.

    >>> from vlm_run import Registry
    >>> Registry.load("demo_llava").placeholder(1)  # `_` and `-` are interchangeable
    '<image>'
    """

    @staticmethod
    def load(
        model: str | Path,
        *,
        checkpoint: str | Path | None = None,
        chat_template: str | Path | None = None,
        limits: Limits | None = None,
        config: Mapping[str, Any] | None = None,
        plugins: Plugins | None = None,
    ) -> Adapter:
        """The adapter for a model type, or for the checkpoint of one.

        Args:
            model: A model type, its repository on the Hugging Face hub or on ModelScope, or a folder
                with a `config.json` that tells the model type.
            checkpoint: Where the weights come from instead of the spec's own source: a folder
                or a repository on the hub.
            chat_template: A Jinja file to render prompts with instead of the spec's own.
            limits: What one request may use.
            config: Engine options of a configuration, on top of the plugin's; `model` in it is a
                checkpoint.
            plugins: Where to look; the installed plugins by default.

        Raises:
            UnknownModelError: No plugin serves it, a folder could be of several model types, or
                there is no such folder.
            TemplateError: There is no such chat template.
        """
        plugins = plugins or installed_plugins()
        checkpoint = checkpoint or (config or {}).get("model")
        known = {canonical(spec.model_type): (spec, plugin) for spec, plugin in plugins.models()}
        if found := known.get(canonical(str(model))):
            spec, plugin = found
        elif found := _of_repository(str(model), plugins):
            spec, plugin = found
            checkpoint = checkpoint or model
        elif os.path.isfile(os.path.join(model, "config.json")):  # False for a name too long for a file
            spec, plugin = _of_checkpoint(Path(model), plugins)
            checkpoint = checkpoint or model
        else:
            raise _unknown(str(model), known)
        if checkpoint is not None and _is_missing_folder(str(checkpoint)):
            raise UnknownModelError(
                f"there is no folder {checkpoint}",
                hint="--model (in Python: checkpoint=) takes a folder with weights or a hub id.",
            )
        if chat_template is not None:
            if not Path(chat_template).is_file():
                raise TemplateError(f"there is no chat template {chat_template}")
            spec = spec.model_copy(update={"chat_template": str(chat_template)})
        return Adapter.create(
            spec,
            plugin,
            plugins,
            source=str(checkpoint or spec.source),
            limits=limits or Limits(),
            config=config,
        )

    @staticmethod
    def model_types(plugins: Plugins | None = None) -> list[str]:
        """All model types, sorted."""
        return sorted(spec.model_type for spec, _ in (plugins or installed_plugins()).models())


def _of_repository(name: str, plugins: Plugins) -> tuple[ModelSpec, Plugin] | None:
    """The model type whose weights a repository has."""
    for spec, plugin in plugins.models():
        if name.lower() in {known.lower() for known in (spec.hf_id, spec.modelscope_id) if known}:
            return spec, plugin
    return None


def _is_missing_folder(source: str) -> bool:
    """Whether a source reads as a path, which a hub id does not, and leads nowhere."""
    return source.startswith(("/", ".", "~")) and not Path(source).expanduser().exists()


def _unknown(model: str, known: Mapping[str, tuple[ModelSpec, Plugin]]) -> UnknownModelError:
    if "/" in model or os.path.exists(model):
        return UnknownModelError(
            f"'{model}' is neither a model type nor a folder with a config.json",
            hint="Give the model type, and where the weights are with --model (in Python: checkpoint=).",
        )
    near = difflib.get_close_matches(canonical(model), known, n=3)
    names = ", ".join(known[name][0].model_type for name in near)
    advice = f"Nearest: {names}. " if names else ""
    return UnknownModelError(
        f"no installed plugin serves the model type '{model}'", hint=f"{advice}`vlm-run models` lists all."
    )


def _of_checkpoint(folder: Path, plugins: Plugins) -> tuple[ModelSpec, Plugin]:
    """The model type whose architecture and facts fit a checkpoint's `config.json` best."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        architectures = config.get("architectures") or []
        if not (isinstance(architectures, list) and all(isinstance(name, str) for name in architectures)):
            raise ValueError("'architectures' is no list of names")
    except (ValueError, AttributeError) as error:
        raise UnknownModelError(f"{folder / 'config.json'} is no model configuration: {error}") from None
    fits = [
        (fit, spec, plugin)
        for spec, plugin in plugins.models()
        if spec.architecture in architectures and (fit := _fit(spec, config)) is not None
    ]
    if not fits:
        raise UnknownModelError(
            f"no installed plugin serves the checkpoint {folder}, whose architecture is "
            f"{', '.join(architectures) or 'not given'}",
            hint="`vlm-run models` lists what is installed.",
        )
    best = max(fit for fit, _, _ in fits)
    candidates = [(spec, plugin) for fit, spec, plugin in fits if fit == best]
    if len(candidates) > 1:
        candidates = _of_template(candidates, _chat_template(folder))
    if len(candidates) > 1:
        names = ", ".join(spec.model_type for spec, _ in candidates)
        raise UnknownModelError(
            f"the checkpoint {folder} could be of several model types: {names}",
            hint="Give one of them, and the folder with --model (in Python: checkpoint=).",
        )
    return candidates[0]


def _fit(spec: ModelSpec, config: Mapping[str, Any]) -> int | None:
    """How many of the spec's facts a config bears out; None if it contradicts one.

    Published configs leave out what equals their class's default, so a missing key decides nothing.
    """
    if config.get("_name_or_path") and config["_name_or_path"] in (spec.hf_id, spec.modelscope_id):
        return len(spec.config_match) + 1
    found = {key: value for key in spec.config_match if (value := _lookup(config, key)) is not None}
    if any(value != spec.config_match[key] for key, value in found.items()):
        return None
    return len(found)


def _of_template(candidates: list[tuple[ModelSpec, Plugin]], template: str) -> list[tuple[ModelSpec, Plugin]]:
    """The candidates whose text stands in the checkpoint's own chat template, else those without a text."""
    marked = [pair for pair in candidates if pair[0].template_match and pair[0].template_match in template]
    return marked or [pair for pair in candidates if not pair[0].template_match] or candidates


def _chat_template(folder: Path) -> str:
    """The source of the chat template in a checkpoint folder; empty if it has none."""
    jinja = folder / "chat_template.jinja"
    if jinja.is_file():
        return jinja.read_text(encoding="utf-8")
    for name in ("chat_template.json", "tokenizer_config.json"):
        try:
            template = json.loads((folder / name).read_text(encoding="utf-8"))["chat_template"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if isinstance(template, str):
            return template
    return ""


def _lookup(config: Any, dotted: str) -> Any:
    """What stands at a dotted key, in which numbers are places in lists; None if nothing does."""
    for key in dotted.split("."):
        if isinstance(config, Mapping):
            config = config.get(key)
        elif isinstance(config, list) and key.isdecimal() and int(key) < len(config):
            config = config[int(key)]
        else:
            return None
    return config
