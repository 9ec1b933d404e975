"""A second node of the cluster: what it lacks is said, and no row is lost when it is taken away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from vlm_run import Request
from vlm_run.errors import EngineError
from vlm_run.ray import cluster as checks
from vlm_run.ray.cluster import Share, check_nodes, installed, nodes

from .rules import Rule, ask

if TYPE_CHECKING:
    from ray._private.node import Node as RunningNode
    from ray.cluster_utils import Cluster


@pytest.fixture(scope="module")
def node(cluster: Cluster, node_options: dict[str, Any]) -> Iterator[RunningNode]:
    """A second node with the resource `other`, which the last test takes away."""
    added = cluster.add_node(**node_options, resources={"other": 1})
    yield added
    if added in cluster.worker_nodes:
        cluster.remove_node(added)


def test_a_node_without_the_files_or_the_versions_is_named(
    node: RunningNode, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = [each for each in nodes() if "other" in each.resources]
    check_nodes(Share(), found, [__file__])
    with pytest.raises(EngineError, match=r"cannot see .*nowhere and 1 more\. Give images as URLs"):
        check_nodes(Share(), found, [str(tmp_path / "nowhere"), str(tmp_path / "none")])
    monkeypatch.setattr(checks, "installed", lambda: {**installed(), "vllm": "9.9"})
    with pytest.raises(EngineError, match=r"other packages than the driver: vllm .* in place of 9\.9"):
        check_nodes(Share(), found, [])


def test_a_node_that_is_taken_away_loses_no_row(cluster: Cluster, node: RunningNode) -> None:
    from vlm_run.ray.pool import Replicas

    removed, count = False, 0

    def requests() -> Iterator[Request]:
        """Rows until it is seen that the node is away, and some more."""
        nonlocal count
        while not replicas.deaths or count % 100:
            yield from ask(f"row {count}")
            count += 1

    found = {}
    # Either node has room for one of them.
    with Replicas(Rule(), 2, Share(cpus=5)) as replicas:
        for number, response in replicas.as_completed(requests()):
            assert number not in found
            found[number] = response.response
            if not removed and "2 of 2" in replicas.status():
                cluster.remove_node(node, allow_graceful=False)
                removed = True
    assert found == {number: f"row {number}" for number in range(count)}
