"""The entry point in the group `vllm.general_plugins`, which vLLM calls in each of its processes.

Kept out of `vlm_run.engine`'s own imports: vLLM calls it in the middle of its own.
"""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import signal

from vlm_run.engine.vllm_internals import skip_what_no_cache_can_hold
from vlm_run.plugins.discovery import installed_plugins

logger = logging.getLogger(__name__)

DIES_WITH_PARENT = "VLM_RUN_ENGINE_DIES_WITH_PARENT"
"""Set in the environment while `Engine` starts vLLM's processes, and in that of a server."""
_PR_SET_PDEATHSIG = 1

_registered: set[str] = set()


def register() -> None:
    """Call `register_with_vllm` of every plugin, once a process; one that fails stops no other.

    Also has vLLM's caches of processed images skip what is larger than they are.
    """
    if DIES_WITH_PARENT in os.environ and multiprocessing.parent_process() is not None:
        _die_with_parent()
        # A terminal sends Ctrl-C to all processes of a command; the parent ends this one in its time.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        skip_what_no_cache_can_hold()
    except Exception:
        # As below. In the versions that vlm-run supports, what is needed is there.
        logger.exception("vLLM's caches of processed images could not be adapted")
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


def _die_with_parent() -> None:
    """Have Linux end this process when the one that started it is killed.

    vLLM's engine would otherwise outlive a `kill -9` and keep the GPU's memory from the next run.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if not multiprocessing.parent_process().is_alive():  # type: ignore[union-attr]  # before it was set
        os._exit(1)
