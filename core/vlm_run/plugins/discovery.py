"""Finds plugins by entry point and registers them; a plugin that fails is recorded with the cause."""

from __future__ import annotations

import configparser
import contextlib
import inspect
import re
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import entrypoints
import pluggy
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import Version
from pydantic import ValidationError

from vlm_run import hookspecs
from vlm_run.errors import PluginError, did_you_mean
from vlm_run.plugins import defaults
from vlm_run.specs import ModelSpec, canonical

GROUP = "vlm_run.plugins"


class PluginWarning(UserWarning):
    """A plugin, or one of its model types, was not loaded; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """A registered plugin with the model types it serves.

    Attributes:
        name: The name of its distribution, or of its entry point if the distribution is unknown.
        version: The version of its distribution.
        module: The module with its hooks.
        specs: Its model types.
        seconds: How long its import and its hook `model_specs` took.
    """

    name: str
    version: str
    module: Any
    specs: tuple[ModelSpec, ...]
    seconds: float = 0.0

    def __reduce__(self) -> tuple[Any, ...]:
        # By name, as modules and classes are pickled: another process imports its own.
        return _installed_plugin, (self.name,)


@dataclass(frozen=True, slots=True)
class BrokenPlugin:
    """A plugin, or one of its model types, that was not loaded.

    Attributes:
        name: The name of its distribution or entry point.
        version: The version of its distribution.
        cause: Why it was not loaded.
    """

    name: str
    version: str
    cause: str


@dataclass(frozen=True)
class Plugins:
    """The result of discovery.

    Attributes:
        manager: The pluggy manager, in which the healthy plugins are registered.
        healthy: The plugins that were loaded.
        broken: The plugins and model types that were not.
    """

    manager: pluggy.PluginManager
    healthy: list[Plugin] = field(default_factory=list)
    broken: list[BrokenPlugin] = field(default_factory=list)

    def models(self) -> Iterator[tuple[ModelSpec, Plugin]]:
        """Every model type with its plugin, in the order of discovery."""
        for plugin in self.healthy:
            for spec in plugin.specs:
                yield spec, plugin

    def implements(self, name: str, plugin: Plugin) -> bool:
        """Whether a plugin implements the hook `name`."""
        caller: pluggy.HookCaller = getattr(self.manager.hook, name)
        return any(found.plugin is plugin.module for found in caller.get_hookimpls())

    def __reduce__(self) -> tuple[Any, ...]:
        return installed_plugins, ()

    def hook(self, name: str, owner: Any) -> pluggy.HookCaller:
        """The hook `name` for model types that `owner` serves.

        It calls the owner, then the core's defaults, with the wrappers of all plugins around them.
        """
        caller: pluggy.HookCaller = getattr(self.manager.hook, name)
        strangers = [
            found.plugin
            for found in caller.get_hookimpls()
            if found.plugin not in (owner, defaults) and not (found.wrapper or found.hookwrapper)
        ]
        return self.manager.subset_hook_caller(name, strangers)


@lru_cache(maxsize=1)
def installed_plugins() -> Plugins:
    """The plugins installed in this environment, discovered once per process.

    Warns once (`PluginWarning`) about each plugin that could not be loaded.
    """
    plugins = discover(_entry_points())
    for broken in plugins.broken:
        warnings.warn(f"plugin {broken.name}: {broken.cause}", PluginWarning, stacklevel=2)
    return plugins


def _installed_plugin(name: str) -> Plugin:
    """A plugin by name, for unpickling in another process."""
    for plugin in installed_plugins().healthy:
        if plugin.name == name:
            return plugin
    raise PluginError(f"plugin {name} is not installed, so it cannot be used in another process")


def discover(points: Iterable[entrypoints.EntryPoint]) -> Plugins:
    """Load and register the plugins behind entry points; one that fails does not affect the others.

    If two plugins list the same model type, the one whose distribution sorts first serves it.
    """
    plugins = Plugins(_manager())
    plugins.manager.register(defaults, "vlm_run.plugins.defaults")
    owners: dict[str, str] = {}  # by canonical model type
    trial = _manager()  # each plugin is checked in it alone
    for point in sorted(points, key=lambda point: (_distribution(point), point.name)):
        name, version = _distribution(point)
        started = time.perf_counter()
        try:
            # Text that a plugin prints must not mix with a command's output.
            with contextlib.redirect_stdout(sys.stderr):
                module = point.load()
                _check_contract(module)
                specs = [
                    resolve(spec, sys.modules[point.module_name], name) for spec in _specs(module, trial)
                ]
            plugins.manager.register(module, f"{name}:{point.name}")
        except (Exception, SystemExit) as error:
            plugins.broken.append(BrokenPlugin(name, version, _describe(error)))
            trial = _manager()  # the failed plugin may still be registered in the old one
            continue
        free = tuple(_free(specs, owners, plugins, name, version))
        plugins.healthy.append(Plugin(name, version, module, free, time.perf_counter() - started))
    return plugins


def _entry_points() -> list[entrypoints.EntryPoint]:
    """The entry points of all plugins in this environment."""
    try:
        found: list[entrypoints.EntryPoint] = entrypoints.get_group_all(GROUP)
        return found
    except configparser.Error:
        # A malformed file of any distribution raises this. The standard library's reader skips what it
        # cannot parse; it is slower, since it reads all of the metadata.
        points = []
        for point in metadata.entry_points(group=GROUP):
            owner = point.dist and entrypoints.Distribution(point.dist.name, point.dist.version)
            with entrypoints.BadEntryPoint.err_to_warnings():
                points.append(entrypoints.EntryPoint.from_string(point.value, point.name, owner))
        return points


def _manager() -> pluggy.PluginManager:
    manager = pluggy.PluginManager("vlm_run")
    manager.add_hookspecs(hookspecs)
    return manager


def _distribution(point: entrypoints.EntryPoint) -> tuple[str, str]:
    """The normalized name and the version of an entry point's distribution."""
    if point.distro is None:
        return point.name, "unknown"
    return re.sub(r"[-_.]+", "-", point.distro.name).lower(), point.distro.version or "unknown"


def _check_contract(module: Any) -> None:
    """Refuse a plugin for another version of the contract before its hooks and specs are checked."""
    stated = getattr(module, "vlm_run_contract", None)
    if stated is None:
        return
    try:
        wanted = SpecifierSet(str(stated))
    except InvalidSpecifier:
        raise PluginError(
            f"its vlm_run_contract, {stated!r}, is not a version range such as '>=1,<2'"
        ) from None
    present = Version(hookspecs.CONTRACT_VERSION)
    if present in wanted:
        return
    newer = any(Version(bound.version.removesuffix(".*")) > present for bound in wanted)
    raise PluginError(
        f"it was written for contract {stated}, but this vlm-run has contract {present}",
        hint="Upgrade vlm-run." if newer else "Upgrade the plugin.",
    )


def _specs(module: Any, trial: pluggy.PluginManager) -> list[ModelSpec]:
    """The plugin's model types, after checking that its hooks are those of the contract.

    Args:
        module: The plugin.
        trial: A manager without plugins. It has none afterwards either, unless an error is raised.
    """
    _check_arguments(module, trial)
    trial.register(module)
    for caller in trial.get_hookcallers(module) or []:
        if not caller.has_spec():
            hooks = [name for name, known in vars(trial.hook).items() if known.has_spec()]
            raise PluginError(
                f"'{caller.name}' is not a hook of vlm_run", hint=did_you_mean(caller.name, hooks)
            )
    if not trial.hook.model_specs.get_hookimpls():
        raise PluginError("it does not implement the hook 'model_specs'")
    answer = next(iter(trial.hook.model_specs()), None)  # pluggy omits None
    if isinstance(answer, ModelSpec) or not isinstance(answer, Iterable):
        raise PluginError(f"'model_specs' must return a list of ModelSpecs, not {type(answer).__name__}")
    specs = list(answer)
    for spec in specs:
        if not isinstance(spec, ModelSpec):
            raise PluginError(f"'model_specs' must return ModelSpecs, not {type(spec).__name__}")
    trial.unregister(module)
    return specs


def _check_arguments(module: Any, trial: pluggy.PluginManager) -> None:
    """Refuse a hook with an argument that the contract does not have."""
    for name in dir(module):
        spec = getattr(getattr(trial.hook, name, None), "spec", None)
        if spec is None or trial.parse_hookimpl_opts(module, name) is None:
            continue
        for argument in inspect.signature(getattr(module, name)).parameters:
            if argument not in spec.argnames:
                raise PluginError(
                    f"the hook '{name}' has no argument '{argument}'",
                    hint=did_you_mean(argument, spec.argnames) or f"It has: {', '.join(spec.argnames)}.",
                )


def resolve(spec: ModelSpec, module: Any, plugin: str) -> ModelSpec:
    """The spec with absolute paths and its family.

    Args:
        spec: As the plugin states it, with paths relative to its package directory.
        module: The plugin's module.
        plugin: The plugin's name.

    Raises:
        PluginError: A file does not exist.
    """
    file = module.__file__
    if file is None:
        raise PluginError(f"'{module.__name__}' has no file, so '{spec.chat_template}' cannot be located")
    directory = Path(file).parent
    paths = {"chat_template": directory / spec.chat_template}
    if spec.checkpoint is not None:
        paths["checkpoint"] = directory / spec.checkpoint
    for field_name, path in paths.items():
        # A checkpoint may lack a template; `Registry.load` then asks for one.
        if not path.exists() and not (spec.derived_from and field_name == "chat_template"):
            raise PluginError(f"'{spec.model_type}': {field_name} {path} does not exist")
    family = spec.family or plugin.removeprefix("vlm-run-")
    return spec.model_copy(update={"family": family, **{name: str(path) for name, path in paths.items()}})


def _free(
    specs: Iterable[ModelSpec], owners: dict[str, str], plugins: Plugins, name: str, version: str
) -> Iterator[ModelSpec]:
    """The specs whose model types no other plugin serves; the others are recorded as broken."""
    for spec in specs:
        owner = owners.get(canonical(spec.model_type))
        if owner is None:
            owners[canonical(spec.model_type)] = name
            yield spec
        else:
            cause = f"model type '{spec.model_type}' is already served by {owner}"
            plugins.broken.append(BrokenPlugin(name, version, cause))


def _describe(error: BaseException) -> str:
    if isinstance(error, PluginError):
        return str(error)
    if isinstance(error, ValidationError):
        faults = [f"{'.'.join(map(str, fault['loc'])) or 'spec'}: {fault['msg']}" for fault in error.errors()]
        return f"{error.title} is invalid: {'; '.join(faults)}"
    return f"{type(error).__name__}: {error}"
