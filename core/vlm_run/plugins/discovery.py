"""Finds plugins by entry point and registers them; what fails is kept with its cause."""

from __future__ import annotations

import configparser
import contextlib
import difflib
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
from vlm_run.errors import PluginError
from vlm_run.plugins import defaults
from vlm_run.specs import ModelSpec, canonical

GROUP = "vlm_run.plugins"


class PluginWarning(UserWarning):
    """A plugin, or one of its model types, was left out; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """A plugin that is registered, with the model types it serves."""

    name: str
    """Its distribution's name, or the entry point's where no distribution is known."""
    version: str
    module: Any
    specs: tuple[ModelSpec, ...]
    seconds: float = 0.0
    """How long its import and its hook `model_specs` took."""

    def __reduce__(self) -> tuple[Any, ...]:
        # By name, as modules and classes are: another process has imported its own.
        return _installed_plugin, (self.name,)


@dataclass(frozen=True, slots=True)
class BrokenPlugin:
    """A plugin, or one model type of it, that was left out."""

    name: str
    version: str
    cause: str


@dataclass(frozen=True)
class Plugins:
    """Everything that was found: the pluggy manager, healthy plugins and broken ones."""

    manager: pluggy.PluginManager
    healthy: list[Plugin] = field(default_factory=list)
    broken: list[BrokenPlugin] = field(default_factory=list)

    def models(self) -> Iterator[tuple[ModelSpec, Plugin]]:
        """Every model type with its plugin, in the order of discovery."""
        for plugin in self.healthy:
            for spec in plugin.specs:
                yield spec, plugin

    def implements(self, name: str, plugin: Plugin) -> bool:
        """Whether a plugin has an implementation of its own of the hook `name`."""
        caller: pluggy.HookCaller = getattr(self.manager.hook, name)
        return any(found.plugin is plugin.module for found in caller.get_hookimpls())

    def __reduce__(self) -> tuple[Any, ...]:
        return installed_plugins, ()

    def hook(self, name: str, owner: Any) -> pluggy.HookCaller:
        """The hook `name` for model types that `owner` serves.

        It calls the owner, then the core's defaults, and wrappers of every plugin around them.
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
    """The plugins installed in this environment, found once a process.

    Warns once (`PluginWarning`) about each that had to be left out.
    """
    plugins = discover(_entry_points())
    for broken in plugins.broken:
        warnings.warn(f"plugin {broken.name}: {broken.cause}", PluginWarning, stacklevel=2)
    return plugins


def _installed_plugin(name: str) -> Plugin:
    """A plugin that another process refers to."""
    for plugin in installed_plugins().healthy:
        if plugin.name == name:
            return plugin
    raise PluginError(f"plugin {name} is not installed, so it cannot be used in another process")


def discover(points: Iterable[entrypoints.EntryPoint]) -> Plugins:
    """Load and register the plugins behind entry points; one that fails stops no other.

    Where two claim a model type, the one whose distribution sorts first keeps it.
    """
    plugins = Plugins(_manager())
    plugins.manager.register(defaults, "vlm_run.plugins.defaults")
    owners: dict[str, str] = {}  # of model types, in their canonical form
    trial = _manager()  # where each plugin is alone
    for point in sorted(points, key=lambda point: (_distribution(point), point.name)):
        name, version = _distribution(point)
        started = time.perf_counter()
        try:
            # What a plugin prints would stand in the way of a command's own output.
            with contextlib.redirect_stdout(sys.stderr):
                module = point.load()
                _check_contract(module)
                specs = [_resolve(spec, point, name) for spec in _specs(module, trial)]
            plugins.manager.register(module, f"{name}:{point.name}")
        except (Exception, SystemExit) as error:
            plugins.broken.append(BrokenPlugin(name, version, _describe(error)))
            trial = _manager()  # since something of it may have stayed
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
        # One malformed file is enough, of whichever distribution. The standard library's reader passes
        # over what it does not understand; it is slower, since it looks at all of the metadata.
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
    """Name, as an installer shows it, and version of the distribution of an entry point."""
    if point.distro is None:
        return point.name, "unknown"
    return re.sub(r"[-_.]+", "-", point.distro.name).lower(), point.distro.version or "unknown"


def _check_contract(module: Any) -> None:
    """Refuse a plugin for another contract before its hooks and specs are looked at."""
    stated = getattr(module, "vlm_run_contract", None)
    if stated is None:
        return
    try:
        wanted = SpecifierSet(str(stated))
    except InvalidSpecifier:
        raise PluginError(f"its vlm_run_contract, {stated!r}, is no version range such as '>=1,<2'") from None
    present = Version(hookspecs.CONTRACT_VERSION)
    if present in wanted:
        return
    newer = any(Version(bound.version.removesuffix(".*")) > present for bound in wanted)
    raise PluginError(
        f"it was written for the contract {stated}, but this vlm-run's is {present}",
        hint="Upgrade vlm-run." if newer else "Upgrade the plugin.",
    )


def _specs(module: Any, trial: pluggy.PluginManager) -> list[ModelSpec]:
    """The plugin's model types, once its hooks are seen to be those of the contract.

    Args:
        module: The plugin.
        trial: A manager without plugins, as it is again afterwards unless an error is raised.
    """
    trial.register(module)
    for caller in trial.get_hookcallers(module) or []:
        if not caller.has_spec():
            near = difflib.get_close_matches(caller.name, [name for name in vars(trial.hook)], 2)
            near = [name for name in near if getattr(trial.hook, name).has_spec()]
            advice = f"; did you mean '{near[0]}'?" if near else ""
            raise PluginError(f"'{caller.name}' is no hook of vlm_run{advice}")
    if not trial.hook.model_specs.get_hookimpls():
        raise PluginError("it does not implement the hook 'model_specs'")
    answer = next(iter(trial.hook.model_specs()), None)  # pluggy leaves None out
    if isinstance(answer, ModelSpec) or not isinstance(answer, Iterable):
        raise PluginError(f"'model_specs' must return a list of ModelSpecs, not {type(answer).__name__}")
    specs = list(answer)
    for spec in specs:
        if not isinstance(spec, ModelSpec):
            raise PluginError(f"'model_specs' must return ModelSpecs, not {type(spec).__name__}")
    trial.unregister(module)
    return specs


def _resolve(spec: ModelSpec, point: entrypoints.EntryPoint, plugin: str) -> ModelSpec:
    """The spec with absolute paths and a family."""
    file = sys.modules[point.module_name].__file__
    if file is None:
        raise PluginError(f"'{point.module_name}' has no file to find '{spec.chat_template}' beside")
    folder = Path(file).parent
    paths = {"chat_template": folder / spec.chat_template}
    if spec.checkpoint is not None:
        paths["checkpoint"] = folder / spec.checkpoint
    for field_name, path in paths.items():
        if not path.exists():
            raise PluginError(f"'{spec.model_type}': {field_name} {path} does not exist")
    family = spec.family or plugin.removeprefix("vlm-run-")
    return spec.model_copy(update={"family": family, **{name: str(path) for name, path in paths.items()}})


def _free(
    specs: Iterable[ModelSpec], owners: dict[str, str], plugins: Plugins, name: str, version: str
) -> Iterator[ModelSpec]:
    """The specs whose model types have no owner yet, and now have; the others are kept as broken."""
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
