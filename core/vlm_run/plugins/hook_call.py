"""Calls one hook of a plugin; what goes wrong in it becomes an error that names the plugin."""

from __future__ import annotations

from collections.abc import Callable
from traceback import walk_tb
from typing import Any, TypeVar

from vlm_run.errors import PluginError, VlmRunError
from vlm_run.plugins.discovery import Plugin, Plugins

T = TypeVar("T")


def call_hook(
    plugins: Plugins, plugin: Plugin, hook: str, returns: Callable[..., T] | type[T], **arguments: Any
) -> T:
    """The answer of a plugin's hook, or of the default where the plugin does not implement it.

    Args:
        plugins: All installed plugins; wrappers of others take part.
        plugin: The plugin to ask.
        hook: The hook's name.
        returns: The type that it must return.
        arguments: The hook's arguments.

    Raises:
        VlmRunError: The hook raised it.
        PluginError: The hook raised something else, or returned another type.
    """
    try:
        answer = plugins.hook(hook, plugin.module)(**arguments)
    except VlmRunError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"the hook '{hook}' of plugin {_at_fault(error, plugins) or plugin.name} failed with "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(answer, returns):  # type: ignore[arg-type]
        raise PluginError(
            f"the hook '{hook}' of plugin {plugin.name} returned {type(answer).__name__}, "
            f"not {returns.__name__}"
        )
    return answer


def _at_fault(error: BaseException, plugins: Plugins) -> str | None:
    """The plugin whose code raised the error, which may be another plugin's wrapper."""
    owners = {getattr(plugin.module, "__name__", ""): plugin.name for plugin in plugins.healthy}
    for frame, _ in reversed([*walk_tb(error.__traceback__)]):
        module = frame.f_globals.get("__name__", "")
        if owner := owners.get(module) or owners.get(module.partition(".")[0]):
            return owner
    return None
