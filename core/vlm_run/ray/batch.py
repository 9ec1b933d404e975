"""The replicas of `vlm-run infer --val_dataset DATA --replicas N`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vlm_run.media import MediaPolicy
from vlm_run.media.source import PAGE_MARK
from vlm_run.ray.cluster import check_nodes, check_room, installed, joined, nodes, part_of_node, share_of
from vlm_run.ray.replica import EngineRecipe

if TYPE_CHECKING:
    from vlm_run.adapter import Adapter
    from vlm_run.ray.pool import Replicas
    from vlm_run.request import Request


@contextmanager
def started_replicas(
    adapter: Adapter,
    count: int,
    *,
    address: str | None = None,
    policy: MediaPolicy | None = None,
    options: Mapping[str, Any] | None = None,
    renderers: int | None = None,
    first_request: Request | None = None,
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
        first_request: A request whose local images every node must see.
        verbose: Whether what the replicas print is shown here.

    Raises:
        VlmRunError: The cluster cannot be joined or lacks something, or the first engine could not start.
    """
    options = dict(options or {})
    paths = _local_images(first_request)
    if os.path.isdir(adapter.source):
        # Replicas have a working directory of their own.
        adapter = replace(adapter, source=os.path.abspath(adapter.source))
        paths.append(adapter.source)
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


def _local_images(request: Request | None) -> list[str]:
    """The images of a request that are files here."""
    sources = () if request is None else request.conversation.images
    paths = [str(source) for source in sources if isinstance(source, (str, os.PathLike))]
    return [path for each in paths for path in (each, each.rpartition(PAGE_MARK)[0]) if os.path.isfile(path)]
