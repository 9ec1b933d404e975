"""`vlm-run pull`: downloads a model's weights."""

from __future__ import annotations

from typing import Annotated

import typer

from vlm_run.cli.completion import complete_model_type
from vlm_run.cli.options import HubOption, Verbose


def pull(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Model type, or a repository on the hub.",
            autocompletion=complete_model_type,
        ),
    ],
    hub: HubOption = "huggingface",
    verbose: Verbose = False,
) -> None:
    """Download a model's weights and print their directory.

        vlm-run pull qwen2-vl-7b-instruct

    What the cache of the hub has is not downloaded again.
    """
    from vlm_run.registry import pull as run

    typer.echo(run(model, hub))
