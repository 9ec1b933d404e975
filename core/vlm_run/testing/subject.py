"""What a check looks at, and what it says of it."""

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
    """A plugin does not do what the contract says; the message is for its author."""


class CheckSkipped(VlmRunError):
    """A check does not apply, or what it needs is missing; the message says what."""


class LeftOutError(PluginError):
    """A plugin is installed, but vlm-run could not use it."""


@dataclass(frozen=True, slots=True)
class PluginSubject:
    """A plugin as a whole."""

    plugins: Plugins
    plugin: Plugin


@dataclass(frozen=True, slots=True)
class ModelSubject:
    """One of a plugin's model types.

    Attributes:
        checkpoint: A folder with its configuration, tokenizer and preprocessor configuration;
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
        """Whether the plugin has an implementation of its own of a hook."""
        return self.plugins.implements(hook, self.plugin)

    def need_checkpoint(self) -> Path:
        """The checkpoint folder.

        Raises:
            CheckSkipped: None was given.
        """
        if self.checkpoint is None:
            raise CheckSkipped("no checkpoint folder is given for this model type")
        return self.checkpoint


def find_plugin(distribution: str, plugins: Plugins | None = None) -> PluginSubject:
    """An installed plugin.

    Args:
        distribution: Its distribution's name, however spelled.
        plugins: Where to look; the installed plugins by default.

    Raises:
        LeftOutError: It is installed, but was left out.
        PluginError: It is not installed.
    """
    plugins = plugins or installed_plugins()
    name = re.sub(r"[-_.]+", "-", distribution).lower()
    for plugin in plugins.healthy:
        if plugin.name == name:
            return PluginSubject(plugins, plugin)
    causes = [broken.cause for broken in plugins.broken if broken.name == name]
    if causes:
        raise LeftOutError(f"the plugin {name} was left out: {'; '.join(causes)}")
    known = ", ".join(plugin.name for plugin in plugins.healthy)
    raise PluginError(f"no plugin {name} is installed", hint=f"Installed: {known or 'none'}.")
