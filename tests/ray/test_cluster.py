"""What is wrong with a cluster is said before anything is loaded there."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm_run.errors import EngineError, VlmRunError
from vlm_run.ray import cluster as checks
from vlm_run.ray.cluster import (
    Node,
    Share,
    check_room,
    joined,
    part_of_node,
    share_of,
    version_differences,
)

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

GIB = 1024**3
GPU_NODE = Node("a", "10.0.0.1", {"CPU": 32.0, "GPU": 8.0, "memory": 256.0 * GIB})


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ray://10.0.0.1:10001", "Ray Client addresses .* are not supported"),
        ("10.0.0.1", "is not an address. Write HOST:PORT, or auto."),
        ("127.0.0.1:99999999", "does not answer"),
    ],
)
def test_an_address_that_cannot_be_one_is_refused(address: str, message: str) -> None:
    with pytest.raises(VlmRunError, match=message):
        checks._check_address(address)


def test_an_address_that_does_not_answer_is_said_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        with pytest.raises(VlmRunError, match=r"--ray 127\.0\.0\.1:\d+ does not answer"):
            checks._check_address(f"127.0.0.1:{taken.getsockname()[1]}")


def test_gpus_are_counted_by_the_parallel_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "computes_on_cpus", lambda: False)
    share = share_of({"tensor_parallel_size": 2, "pipeline_parallel_size": None}, 3, [GPU_NODE])
    assert share == Share(cpus=1.0, gpus=2.0)
    assert part_of_node(share, [GPU_NODE]) == 0.25


def test_cores_and_memory_are_counted_where_vllm_computes_on_cpus(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(bytes(1000))
    options = {"model": str(tmp_path), "kv_cache_memory_bytes": 5000}
    share = share_of(options, 2, [Node("a", "10.0.0.1", {"CPU": 8.0})])
    assert share == Share(cpus=4.0, memory=6000)


def test_too_few_gpus_are_an_error_with_what_there_is_and_what_is_asked(cluster: Cluster) -> None:
    with pytest.raises(EngineError, match="10 replicas need 2 GPUs, 1 CPUs each") as caught:
        check_room(Share(gpus=2), 10, [GPU_NODE])
    assert "has room for 4: 10.0.0.1 (8 GPUs, 32 CPUs, 256.0 GiB of memory)" in str(caught.value)
    with pytest.raises(EngineError, match="room for 0"):
        check_room(Share(memory=300 * GIB), 1, [GPU_NODE])
    check_room(Share(gpus=2), 4, [GPU_NODE])


def test_differences_of_versions_are_named() -> None:
    wanted = {"vlm-run": "1", "vllm": "0.32.0", "plugin": "3"}
    assert version_differences(wanted, {**wanted, "other": "1"}) == ""
    found = {"vlm-run": "1", "vllm": "0.31.0"}
    assert version_differences(wanted, found) == "vllm 0.31.0 in place of 0.32.0, plugin 3 is missing"


def test_a_cluster_that_this_process_is_in_already_is_used_and_kept(cluster: Cluster) -> None:
    import ray

    with joined("10.255.255.1:6379"):
        assert ray.is_initialized()
    assert ray.is_initialized()


@given(
    st.builds(Share, st.floats(0.5, 8), st.sampled_from([0.0, 0.5, 1.0, 2.0]), st.integers(0, 4 * GIB)),
    st.floats(0, 64),
    st.integers(0, 8),
)
def test_what_fits_fits_and_one_more_does_not(share: Share, cpus: float, gpus: int) -> None:
    resources = {"CPU": cpus, "GPU": float(gpus), "memory": 16.0 * GIB}
    count = share.fits(resources)

    def needs(replicas: int) -> bool:
        return all(
            each * replicas <= resources[name] + 1e-6
            for name, each in (("CPU", share.cpus), ("GPU", share.gpus), ("memory", share.memory))
        )

    assert needs(count)
    assert not needs(count + 1)
