"""`vlm-run plugin new`: writes the package of a new plugin."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer


def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Short name of the model family, for example acme-vl.")
    ],
    model_type: Annotated[
        str | None,
        typer.Option(help="Model type of the first model, which users type. Default: the plugin's name."),
    ] = None,
    architecture: Annotated[
        str | None,
        typer.Option(help="`architectures` in its config.json. Default: LlavaForConditionalGeneration."),
    ] = None,
    hf_id: Annotated[
        str | None, typer.Option(help="Repository on the Hugging Face hub. Default: NAME/MODEL_TYPE.")
    ] = None,
    placeholder: Annotated[
        str | None,
        typer.Option(
            help="Image placeholder in the prompt; {index} is the image's number. Default: <image>."
        ),
    ] = None,
    from_checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="DIRECTORY",
            help="Checkpoint directory, weights not needed, whose template and tokens are filled in.",
        ),
    ] = None,
    directory: Annotated[
        Path | None, typer.Option(help="Directory of the package. Default: ./vlm-run-NAME.")
    ] = None,
) -> None:
    """Write a new plugin. The package can be installed and passes its own tests.

    On a terminal, asks for the options that are left out; elsewhere, uses their defaults.

        vlm-run plugin new acme-vl --hf-id acme/vl-7b
    """
    from vlm_run import scaffold

    name = scaffold.short_name(name)
    model_type = model_type or _ask("Model type", name)
    hf_id = hf_id or _ask("Hugging Face repository", f"{name}/{model_type}")
    if from_checkpoint is not None:
        derived = scaffold.from_checkpoint(name, from_checkpoint, hf_id, placeholder)
        plugin = replace(derived, model_type=model_type, architecture=architecture or derived.architecture)
    else:
        plugin = scaffold.NewPlugin(
            name=name,
            model_type=model_type,
            architecture=architecture or _ask("Architecture", "LlavaForConditionalGeneration"),
            hf_id=hf_id,
            placeholder=placeholder or _ask("Image placeholder", "<image>"),
        )
    target = directory or Path(plugin.distribution)
    for path in scaffold.write(plugin, target):
        typer.echo(f"wrote {path}")
    typer.secho("\nNext:", bold=True)
    typer.echo(f"  cd {shlex.quote(str(target))}\n  pip install -e '.[test]'\n  pytest")
    typer.echo(f"  vlm-run plugin check {plugin.distribution}")


def _ask(question: str, default: str) -> str:
    if not sys.stdin.isatty():
        return default
    answer: str = typer.prompt(question, default=default)
    return answer
