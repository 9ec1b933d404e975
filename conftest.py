"""What the tests of the core and of the plugins share: one running engine, and who runs beside whom.

A test that starts vLLM has the marker `engine`: given here if it uses one of the fixtures below, and
written above it if it starts vLLM in another way, or a command that imports it, which takes 15 s.
`pytest -m "not engine"` is quick; in a test without the marker vLLM cannot start, so that none goes
unnoticed.

Under pytest-xdist (`--dist loadgroup`) tests that share an engine or a server run in one worker, in which
it is started once, and so do the tests of a file that starts none.
"""

from __future__ import annotations

import atexit
import gc
import multiprocessing.util
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache

import pytest
import typer.testing
from hypothesis import settings

from vlm_run import Engine, Registry
from vlm_run.cli import GC_THRESHOLD

# One thread for each engine. Several engines run at once here, and vLLM pins the threads of each to the
# same cores: at every barrier one thread then waits until the other is scheduled, and 30 requests took
# 180 s in place of 3.5 s.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"

# As in the command: most of what the tests import stays, and collections would find nothing.
gc.set_threshold(GC_THRESHOLD)

# `CliRunner().invoke(app, …)` reads the options of all commands anew each time, 40 ms.
typer.testing._get_command = cache(typer.testing._get_command)

# The first example may import transformers, and a busy machine is not a failure.
settings.register_profile("vlm-run", deadline=None)
settings.load_profile("vlm-run")

# A shell starts background jobs with Ctrl-C ignored, which all processes of the tests would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["pytester"]  # for tests of pytest plugins; it must be asked for here

ENGINES = ("engine", "pooled", "server", "session", "qwen", "phi3")
"""Fixtures that start vLLM, once for several tests."""
STARTERS = (*ENGINES, "start_server")
"""All fixtures that start vLLM."""
NOT_VLLM = ("tests/media",)
"""Where a fixture with such a name starts something else."""
SHARED = (*ENGINES, "cluster")
"""Fixtures that are expensive to start, of which one worker has the only one."""
BESIDE = {"tests/engine/test_renderer_pool.py:pooled": ".:engine"}
"""Fixtures that run in the worker of another one, since some tests compare the two."""


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """Real vLLM with the demo model; started once, since that takes most of the time."""
    # float32 is the quickest for so small a model, also where bfloat16 is not emulated.
    with Registry.load("demo-llava").engine(dtype="float32") as running:
        yield running


def pytest_configure(config: pytest.Config) -> None:
    """Spare a process of pytest-xdist that Python clears all modules at its end, 3 s with those of vLLM."""
    if hasattr(config, "workerinput"):
        atexit.register(os._exit, 0)  # after the exit handlers of what is imported later
        atexit.register(multiprocessing.util._exit_function)  # which is imported already


def pytest_collection_finish(session: pytest.Session) -> None:
    """Let the collections at its end, in which pytest looks for errors of destructors, pass over modules."""
    if hasattr(session.config, "workerinput"):
        gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    groups = {item: _group(item) for item in items}
    for item, group in groups.items():
        if group is not None:
            item.add_marker(pytest.mark.xdist_group(group))
    sizes = Counter(groups.values())
    # Long work first, so that workers end together: what shares an engine or a cluster, what starts its own.
    items.sort(key=lambda item: (not _takes_long(item), -sizes[groups[item]] if groups[item] else 0))


def _takes_long(item: pytest.Item) -> bool:
    return _starts_vllm(item) or "cluster" in getattr(item, "fixturenames", ())


def _group(item: pytest.Item) -> str | None:
    """The tests that must run in one worker; None for one that may run anywhere."""
    fixtures = () if item.nodeid.startswith(NOT_VLLM) else getattr(item, "fixturenames", ())
    for name in SHARED:
        if name in fixtures:
            (*_, definition) = item._fixtureinfo.name2fixturedefs[name]  # type: ignore[attr-defined]
            group = f"{definition.baseid}:{name}"
            return BESIDE.get(group, group)
    return None if _starts_vllm(item) else item.nodeid.partition("::")[0]


def _starts_vllm(item: pytest.Item) -> bool:
    if item.get_closest_marker("engine"):
        return True
    fixtures = getattr(item, "fixturenames", ())
    if item.nodeid.startswith(NOT_VLLM) or not any(name in fixtures for name in STARTERS):
        return False
    item.add_marker("engine")
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Let vLLM start in no test without the marker: the directory of its sockets does not exist."""
    _inspect_models_in_this_process()
    _write_out_no_configs()
    if _starts_vllm(item):
        return (yield)
    before = os.environ.get(_SOCKETS)
    os.environ[_SOCKETS] = "/a-test-that-starts-vllm-needs-the-marker-engine"
    try:
        return (yield)
    finally:
        os.environ.pop(_SOCKETS)
        if before is not None:
            os.environ[_SOCKETS] = before


def _inspect_models_in_this_process() -> None:
    """Spare vLLM a process that imports it anew for each model class that it has not seen before.

    It inspects classes in another process so that CUDA is not initialized, and keeps what it finds on disk.
    """
    registry = sys.modules.get("vllm.model_executor.models.registry")
    if registry is not None:
        registry._run_in_subprocess = lambda inspect: inspect()  # type: ignore[attr-defined]


def _write_out_no_configs() -> None:
    """Spare transformers the text of each configuration that it loads, for a log entry that nobody sees.

    It compares each configuration with one of default values, which takes as long as the rest of loading it.
    """
    configurations = sys.modules.get("transformers.configuration_utils")
    if configurations is not None:
        configurations.PreTrainedConfig.__repr__ = object.__repr__  # type: ignore[attr-defined]


_SOCKETS = "VLLM_RPC_BASE_PATH"
