"""Resolves a model type, a repository or a checkpoint directory to an adapter."""

from __future__ import annotations

import os.path
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlm_run.adapter import Adapter
from vlm_run.checkpoints.chat_template_file import template_source
from vlm_run.checkpoints.download import download
from vlm_run.checkpoints.hub_cache import Hub, configuration, is_repository
from vlm_run.errors import TemplateError, UnknownModelError, did_you_mean
from vlm_run.plugins.discovery import Plugin, Plugins, installed_plugins
from vlm_run.plugins.matching import derived_spec, model_type_of, read_config
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
        template_kwargs: Mapping[str, Any] | None = None,
        limits: Limits | None = None,
        config: Mapping[str, Any] | None = None,
        plugins: Plugins | None = None,
        hub: Hub = "huggingface",
    ) -> Adapter:
        """The adapter for a model type, or for the checkpoint of one.

        Args:
            model: A model type, a repository on the Hugging Face hub or on ModelScope, or a checkpoint
                directory. The owner of a model type's quantized repository may be left out. A checkpoint
                that no plugin lists is passed to the hook `spec_from_checkpoint`; of a repository, the
                configuration files are downloaded for that.
            checkpoint: Where to load the weights from instead of the spec's own source: a directory
                or a repository on the hub.
            chat_template: A Jinja file to render prompts with instead of the spec's own.
            template_kwargs: Variables of the chat template in addition to the spec's, for example
                `{"enable_thinking": False}`.
            limits: Limits on one request.
            config: Engine options from a configuration file, which take precedence over the plugin's;
                `model` in it is a checkpoint.
            plugins: The plugins to search; by default the installed ones.
            hub: The hub of the weights. From ModelScope they are downloaded here, unless its cache has
                them; from Hugging Face's vLLM downloads them when it starts.

        Raises:
            DownloadError: The weights cannot be downloaded from ModelScope.
            UnknownModelError: No plugin serves the model, a checkpoint fits several model types, or
                a directory does not exist.
            TemplateError: The chat template does not exist, or does not use one of `template_kwargs`.
        """
        plugins = plugins or installed_plugins()
        checkpoint = checkpoint or (config or {}).get("model")
        known = {canonical(spec.model_type): (spec, plugin) for spec, plugin in plugins.models()}
        if found := known.get(canonical(str(model))):
            spec, plugin = found
        elif by_repository := _of_repository(str(model), plugins):
            spec, plugin, repository = by_repository
            checkpoint = checkpoint or repository
        elif directory := _directory(model, hub):
            spec, plugin = _of_directory(directory, plugins)
            checkpoint = checkpoint or (model if hub == "huggingface" else directory)
        else:
            raise _unknown(str(model), [spec.model_type for spec, _ in known.values()])
        if hub == "modelscope":
            checkpoint = _from_modelscope(spec, checkpoint)
        if checkpoint is not None and _is_missing_directory(str(checkpoint)):
            raise UnknownModelError(
                f"the directory {checkpoint} does not exist",
                hint="--model (in Python: checkpoint=) takes a directory with weights or a hub id.",
            )
        if checkpoint is not None:
            spec = spec.with_quantized(str(checkpoint))
        spec = _with_chat_template(spec, chat_template, checkpoint)
        if template_kwargs:
            spec = _with_template_kwargs(spec, template_kwargs)
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


def _of_repository(name: str, plugins: Plugins) -> tuple[ModelSpec, Plugin, str] | None:
    """The model type whose weights a repository has, its plugin, and the repository."""
    for spec, plugin in plugins.models():
        if name.lower() in {known.lower() for known in (spec.hf_id, spec.modelscope_id) if known}:
            return spec, plugin, name
        if repository := spec.quantized_as(name):
            return spec, plugin, repository
    return None


def pull(model: str, hub: Hub, plugins: Plugins | None = None) -> Path:
    """Download the weights of a model type or of a repository, unless the cache has them.

    Returns:
        The checkpoint directory, which may be that of a plugin that ships its weights.

    Raises:
        DownloadError: The weights cannot be downloaded.
        UnknownModelError: The model is neither a model type nor the name of a repository.
    """
    plugins = plugins or installed_plugins()
    models = {canonical(spec.model_type): spec for spec, _ in plugins.models()}
    spec = models.get(canonical(model))
    if spec is None:
        if found := _of_repository(model, plugins):
            (*_, model) = found
        if not is_repository(model):
            raise _unknown(model, [spec.model_type for spec in models.values()])
        return download(model, hub)
    if spec.checkpoint is not None:
        return Path(spec.checkpoint)
    return download(_repository(spec, hub), hub)


def _repository(spec: ModelSpec, hub: Hub) -> str:
    """The repository of a model type on a hub."""
    repository = spec.modelscope_id if hub == "modelscope" else spec.hf_id
    if repository is None:
        name = "ModelScope" if hub == "modelscope" else "the Hugging Face hub"
        raise UnknownModelError(
            f"the plugin of '{spec.model_type}' names no repository on {name}",
            hint="Give one with --model (in Python: checkpoint=).",
        )
    return repository


def _from_modelscope(spec: ModelSpec, checkpoint: str | Path | None) -> str | Path | None:
    """The checkpoint, downloaded if it is a repository; None if the plugin ships its weights."""
    if checkpoint is None and spec.checkpoint is not None:
        return None
    if checkpoint is None or str(checkpoint).lower() == (spec.hf_id or "").lower():
        return download(_repository(spec, "modelscope"), "modelscope")
    if os.path.exists(checkpoint) or not is_repository(str(checkpoint)):
        return checkpoint
    return download(str(checkpoint), "modelscope")


def _directory(model: str | Path, hub: Hub) -> Path | None:
    """The checkpoint directory that a path or a repository on the hub refers to; None if it is neither."""
    if os.path.isfile(os.path.join(model, "config.json")):  # False for a name too long for a file
        return Path(model)
    if is_repository(str(model)) and not os.path.exists(model):
        return configuration(str(model)) if hub == "huggingface" else download(str(model), hub)
    return None


def _of_directory(directory: Path, plugins: Plugins) -> tuple[ModelSpec, Plugin]:
    """The model type of a checkpoint directory, else the spec that a plugin derives from it."""
    if found := model_type_of(directory, plugins) or derived_spec(directory, plugins):
        return found
    architectures = read_config(directory).get("architectures") or ["not given"]
    raise UnknownModelError(
        f"no installed plugin serves the checkpoint {directory}, whose architecture is "
        f"{', '.join(architectures)}",
        hint="`vlm-run models` lists what is installed; the plugin vlm-run-auto serves other checkpoints.",
    )


def _with_chat_template(
    spec: ModelSpec, chat_template: str | Path | None, checkpoint: str | Path | None
) -> ModelSpec:
    """The spec with another chat template; a spec that was derived from a checkpoint may have none."""
    if chat_template is None:
        if os.path.isfile(spec.chat_template):
            return spec
        raise TemplateError(
            f"the checkpoint {checkpoint} has no chat template",
            hint="Give one with --chat-template (in Python: chat_template=).",
        )
    if not os.path.isfile(chat_template):
        raise TemplateError(f"the chat template {chat_template} does not exist")
    return spec.model_copy(update={"chat_template": str(chat_template)})


def _with_template_kwargs(spec: ModelSpec, variables: Mapping[str, Any]) -> ModelSpec:
    """The spec with further variables of its chat template, all of which the template must use."""
    words = sorted(set(re.findall(r"[A-Za-z_]\w*", template_source(Path(spec.chat_template)))))
    for name in variables:
        if name not in words:
            raise TemplateError(
                f"the chat template of '{spec.model_type}' has no variable '{name}'",
                hint=did_you_mean(name, words),
            )
    return spec.model_copy(update={"template_kwargs": {**spec.template_kwargs, **variables}})


def _is_missing_directory(source: str) -> bool:
    """Whether a source reads as a path, which a hub id does not, and does not exist."""
    return source.startswith(("/", ".", "~")) and not os.path.exists(os.path.expanduser(source))


def _unknown(model: str, known: list[str]) -> UnknownModelError:
    if "/" in model or os.path.exists(model):
        return UnknownModelError(
            f"'{model}' is neither a model type, nor a directory with a config.json, nor a repository that "
            "can be read from the hub or its cache",
            hint="Give the model type, and where the weights are with --model (in Python: checkpoint=).",
        )
    advice = did_you_mean(model, known, most=3, key=canonical)
    return UnknownModelError(
        f"no installed plugin serves the model type '{model}'",
        hint=" ".join(filter(None, [advice, "`vlm-run models` lists all."])),
    )
