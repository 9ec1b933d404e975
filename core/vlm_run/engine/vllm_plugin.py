"""What vLLM calls in each of its processes: the entry point in the group `vllm.general_plugins`.

Kept out of `vlm_run.engine`'s own imports: vLLM calls it in the middle of its own.
"""

from __future__ import annotations

import logging

from vlm_run.discovery import installed_plugins

logger = logging.getLogger(__name__)

_registered: set[str] = set()


def register() -> None:
    """Call `register_with_vllm` of every plugin, once a process; one that fails stops no other."""
    plugins = installed_plugins()
    for plugin in plugins.healthy:
        if plugin.name in _registered:
            continue
        _registered.add(plugin.name)
        try:
            plugins.hook("register_with_vllm", plugin.module)()
        except Exception:
            # vLLM would stop every model at this; only this plugin's own models are at risk.
            logger.exception("plugin %s could not register with vLLM", plugin.name)
