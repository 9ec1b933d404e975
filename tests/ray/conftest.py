"""One Ray cluster on this machine for all tests: two cores, and little memory for objects."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from vlm_run.ray.pool import Replicas

from . import rules

OBJECT_STORE = 80 * 1024**2


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A running cluster that this process has joined; tests may add nodes to it."""
    with (
        tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as directory,
        pytest.MonkeyPatch.context() as environment,
    ):
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        environment.setenv("RAY_TMPDIR", directory)
        environment.setenv("RAY_worker_niceness", "0")  # as `joined` has it; tests run beside engines
        head = {"num_cpus": 8, "object_store_memory": OBJECT_STORE, "include_dashboard": False}
        running = Cluster(initialize_head=True, head_node_args=head)
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
