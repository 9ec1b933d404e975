"""`vlm-run plugin new`: the package of a new plugin."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer


def new(
    name: Annotated[str, typer.Argument(help="Short name of the model family, for example acme-vl.")],
    model_type: Annotated[
        str | None, typer.Option(help="Name users type for the first model. Default: the plugin's name.")
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
            help="What stands for a picture in its prompt; {index} is its number. Default: <image>."
        ),
    ] = None,
    directory: Annotated[
        Path | None, typer.Option(help="Where the package goes. Default: ./vlm-run-NAME.")
    ] = None,
) -> None:
    """Write a new plugin: a package that installs and passes its own tests as it is.

    On a terminal, asks for what is left out; elsewhere the defaults are taken.

        vlm-run plugin new acme-vl --hf-id acme/vl-7b
    """
    from vlm_run import scaffold

    name = scaffold.short_name(name)
    model_type = model_type or _ask("Model type", name)
    plugin = scaffold.NewPlugin(
        name=name,
        model_type=model_type,
        architecture=architecture or _ask("Architecture", "LlavaForConditionalGeneration"),
        hf_id=hf_id or _ask("Hugging Face repository", f"{name}/{model_type}"),
        placeholder=placeholder or _ask("Placeholder of a picture", "<image>"),
    )
    folder = directory or Path(plugin.distribution)
    for path in scaffold.write(plugin, folder):
        typer.echo(f"wrote {path}")
    typer.secho("\nNext:", bold=True)
    typer.echo(f"  cd {shlex.quote(str(folder))}\n  pip install -e '.[test]'\n  pytest")
    typer.echo(f"  vlm-run plugin check {plugin.distribution}")


def _ask(question: str, default: str) -> str:
    if not sys.stdin.isatty():
        return default
    answer: str = typer.prompt(question, default=default)
    return answer
