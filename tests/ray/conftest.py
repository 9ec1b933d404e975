"""One Ray cluster on this machine for all tests: two cores, and little memory for objects.

Ray is imported by what needs the cluster, not by the modules: each process of pytest-xdist imports all
modules of tests, and Ray Serve takes 2 s.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from vlm_run.cli import GC_THRESHOLD

from . import rules

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

    from vlm_run.ray.pool import Replicas

# What Ray Serve imports in each of its processes where it is installed, and does not need; pandas takes 1 s.
_OPTIONAL = ("pandas", "email_validator", "watchfiles")


@pytest.fixture(scope="session")
def node_options() -> Iterator[dict[str, Any]]:
    """The options of each of the cluster's nodes."""
    with tempfile.TemporaryDirectory(prefix="modules-") as directory:
        for name in _OPTIONAL:
            Path(directory, f"{name}.py").write_text(f"raise ImportError('no {name} here')")
        # As in the tests' own process; imports are a quarter faster.
        Path(directory, "sitecustomize.py").write_text(f"import gc\ngc.set_threshold({GC_THRESHOLD})\n")
        environment = {
            "PYTHONPATH": directory,
            "RAY_prestart_worker_first_driver": "0",
            "RAY_worker_niceness": "0",  # as `joined` has it; tests run beside engines
        }
        yield {"num_cpus": 8, "object_store_memory": 80 * 1024**2, "env_vars": environment}


@pytest.fixture(scope="session")
def cluster(node_options: dict[str, Any]) -> Iterator[Cluster]:
    """A running cluster that this process has joined; tests may add nodes to it."""
    import ray
    from ray.cluster_utils import Cluster

    with (
        tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as directory,
        pytest.MonkeyPatch.context() as environment,
    ):
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        environment.setenv("RAY_TMPDIR", directory)
        environment.setenv("RAY_enable_metrics_collection", "0")
        # Without the processes that show logs and add nodes, neither of which happens here.
        unused = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
        running = Cluster(initialize_head=True, head_node_args={**node_options, **unused})
        ray.init(address=running.address, log_to_driver=False, logging_level="error")
        rules.send_with_tests(rules)
        yield running
        ray.shutdown()
        running.shutdown()


@pytest.fixture(scope="session")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that rows with the question `wait` wait for."""
    return tmp_path_factory.mktemp("gate") / "open"


@pytest.fixture(scope="session")
def shared_replicas(cluster: Cluster, gate: Path) -> Iterator[Replicas]:
    from vlm_run.ray.pool import Replicas

    with Replicas(rules.Rule(gate), 2) as running:
        yield running


@pytest.fixture
def replicas(shared_replicas: Replicas, gate: Path) -> Iterator[Replicas]:
    """Two replicas that answer by a rule."""
    gate.unlink(missing_ok=True)
    shared_replicas.wait(2)
    shared_replicas.deaths = 0
    yield shared_replicas
    gate.touch()
