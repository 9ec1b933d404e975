"""The replicas of `vlm-run infer --val_dataset DATA --replicas N`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vlm_run.media import MediaPolicy
from vlm_run.ray.cluster import check_nodes, check_room, installed, joined, nodes, part_of_node, share_of
from vlm_run.ray.replica import EngineRecipe

if TYPE_CHECKING:
    from vlm_run.adapter import Adapter
    from vlm_run.ray.pool import Replicas


@contextmanager
def started_replicas(
    adapter: Adapter,
    count: int,
    *,
    address: str | None = None,
    policy: MediaPolicy | None = None,
    options: Mapping[str, Any] | None = None,
    renderers: int | None = None,
    paths: Sequence[str] = (),
    verbose: bool = False,
) -> Iterator[Replicas]:
    """Engines on a Ray cluster until the block ends; the first of them is ready.

    Args:
        adapter: The model.
        count: Engines.
        address: Of a Ray cluster; None starts one on this machine.
        policy: What images may be fetched, and how large they may be.
        options: Engine options, in addition to the plugin's.
        renderers: Processes per engine that prepare images; None for a share of the node's cores.
        paths: Images that every node must see.
        verbose: Whether what the replicas print is shown here.

    Raises:
        VlmRunError: The cluster cannot be joined or lacks something, or the first engine could not start.
    """
    options = dict(options or {})
    with joined(address, log_to_driver=verbose):
        from vlm_run.ray.pool import Replicas

        cluster = nodes()
        share = share_of(adapter.engine_kwargs(**options), count, cluster)
        check_room(share, count, cluster)
        check_nodes(share, cluster, paths)
        part = part_of_node(share, cluster)
        recipe = EngineRecipe(adapter, policy or MediaPolicy(), options, renderers, part, installed())
        with Replicas(recipe, count, share) as replicas:
            replicas.wait()
            yield replicas
