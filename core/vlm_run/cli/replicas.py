"""Options of the commands that run several engines on Ray."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

_PANEL = "Several engines (Ray)"

RAY = ("ray", "ray", "several engines")
"""What `check_library` is asked before any of them starts."""

Replicas: TypeAlias = Annotated[
    int | None, typer.Option(min=1, help="Number of engines, as Ray actors.", rich_help_panel=_PANEL)
]
MinReplicas: TypeAlias = Annotated[
    int | None,
    typer.Option(min=0, help="Fewest engines under little load; 1 by default.", rich_help_panel=_PANEL),
]
MaxReplicas: TypeAlias = Annotated[
    int | None,
    typer.Option(min=1, help="Most engines under much load, instead of --replicas.", rich_help_panel=_PANEL),
]
RayAddress: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Ray cluster to join: auto, or HOST:PORT of its head. By default one starts on this machine.",
        rich_help_panel=_PANEL,
    ),
]
