"""Which layer set each engine option."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vlm_run.plugins.gpu_throughput import gpu_engine_kwargs

if TYPE_CHECKING:
    from vlm_run.adapter import Adapter

CORE, PLUGIN, CONFIG, FLAG = "vlm-run", "plugin default", "config", "flag"
THROUGHPUT = "vlm-run, for throughput"
"""The layers that set engine options, in order of precedence, lowest first."""


def option_layers(
    adapter: Adapter, kwargs: Mapping[str, Any], overrides: Mapping[str, Any]
) -> dict[str, str]:
    """The layer that set each option; nested options have dotted names."""
    default = _flat(adapter.default_engine_kwargs())
    config = _flat(adapter.config)
    flags = {*_flat(overrides), *_flat(adapter.limits.apply_to({}))}
    throughput = _flat(gpu_engine_kwargs(adapter.spec.architecture, {}, served=True))
    layers = {}
    for name, value in _flat(kwargs).items():
        if name in flags:
            layers[name] = FLAG
        elif name in config and config[name] == value:
            layers[name] = CONFIG
        elif name == "model" and value != adapter.spec.source:
            layers[name] = FLAG
        elif name == "model" or (name in default and default[name] == value):
            layers[name] = PLUGIN
        elif name in throughput:
            layers[name] = THROUGHPUT
        elif name in ("trust_remote_code", "dtype"):
            layers[name] = CORE
        else:
            layers[name] = FLAG  # set by the plugin in response to a limit
    return layers


def _flat(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
