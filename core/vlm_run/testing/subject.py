"""The subject of a check, and how a check reports its outcome."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from vlm_run.adapter import Adapter
from vlm_run.errors import PluginError, VlmRunError
from vlm_run.plugins.discovery import Plugin, Plugins, installed_plugins
from vlm_run.registry import Registry
from vlm_run.specs import Limits, ModelSpec


class CheckFailed(VlmRunError):
    """A plugin breaks the contract; the message is for its author."""


class CheckSkipped(VlmRunError):
    """A check does not apply, or something that it needs is missing; the message says what."""


class LeftOutError(PluginError):
    """A plugin is installed, but could not be loaded."""


@dataclass(frozen=True, slots=True)
class PluginSubject:
    """A plugin as a whole.

    Attributes:
        plugins: All installed plugins.
        plugin: The plugin to check.
    """

    plugins: Plugins
    plugin: Plugin


@dataclass(frozen=True, slots=True)
class ModelSubject:
    """One model type of a plugin.

    Attributes:
        plugins: All installed plugins.
        plugin: The plugin to check.
        spec: The model type.
        checkpoint: A directory with its configuration, tokenizer and preprocessor configuration;
            weights are not needed.
    """

    plugins: Plugins
    plugin: Plugin
    spec: ModelSpec
    checkpoint: Path | None = None

    def adapter(self, limits: Limits | None = None) -> Adapter:
        """The model type's adapter."""
        return Registry.load(
            self.spec.model_type, checkpoint=self.checkpoint, limits=limits, plugins=self.plugins
        )

    def implements(self, hook: str) -> bool:
        """Whether the plugin implements a hook."""
        return self.plugins.implements(hook, self.plugin)

    def need_checkpoint(self) -> Path:
        """The checkpoint directory.

        Raises:
            CheckSkipped: None was given.
        """
        if self.checkpoint is None:
            raise CheckSkipped("no checkpoint directory is given for this model type")
        return self.checkpoint


def find_plugin(distribution: str, plugins: Plugins | None = None) -> PluginSubject:
    """Find an installed plugin by the name of its distribution.

    Args:
        distribution: The name of the distribution, in any spelling, or without `vlm-run-`, as it was given to
            `vlm-run plugin new`.
        plugins: The plugins to search; by default the installed ones.

    Raises:
        LeftOutError: The plugin is installed, but could not be loaded.
        PluginError: The plugin is not installed.
    """
    plugins = plugins or installed_plugins()
    name = re.sub(r"[-_.]+", "-", distribution).lower()
    names = {name, f"vlm-run-{name}"}
    for plugin in plugins.healthy:
        if plugin.name in names:
            return PluginSubject(plugins, plugin)
    causes = [broken.cause for broken in plugins.broken if broken.name in names]
    if causes:
        raise LeftOutError(f"the plugin {name} could not be loaded: {'; '.join(causes)}")
    known = ", ".join(plugin.name for plugin in plugins.healthy)
    raise PluginError(f"the plugin {name} is not installed", hint=f"Installed: {known or 'none'}.")
