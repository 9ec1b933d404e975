"""`vlm-run models`: lists the model types of all installed plugins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlm_run.cli.output import print_table
from vlm_run.errors import VlmRunError

if TYPE_CHECKING:
    from vlm_run.specs import ModelSpec


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    stub: Annotated[
        Path | None,
        typer.Option(
            metavar="DIRECTORY", help="Write a stub file there, with which editors complete ModelType."
        ),
    ] = None,
) -> None:
    """List the model types that installed plugins serve."""
    if stub is not None:
        _write_stub(stub)
        return
    from vlm_run.plugins.discovery import installed_plugins

    served = sorted(installed_plugins().models(), key=lambda pair: (pair[0].family, pair[0].model_type))
    if as_json:
        rows = [
            {
                "model_type": spec.model_type,
                "hf_id": spec.hf_id,
                "modelscope_id": spec.modelscope_id,
                "family": spec.family,
                "plugin": plugin.name,
                "architecture": spec.architecture,
                "context_length": spec.context_length,
                "vllm": spec.vllm,
                "replaced_by": spec.replaced_by,
            }
            for spec, plugin in served
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    if not served:
        typer.echo("No plugin is installed. For example: pip install vlm-run-llava")
        return
    print_table(
        ["model type", "weights", "family", "plugin"],
        [
            [
                spec.model_type,
                _weights(spec),
                spec.family,
                plugin.name,
            ]
            for spec, plugin in served
        ],
    )


def _write_stub(directory: Path) -> None:
    from vlm_run.swift.model_type import write_stub

    try:
        typer.echo(f"Wrote {write_stub(directory)}")
    except OSError as error:
        raise VlmRunError(f"{directory} cannot be written to: {error.strerror}") from None


def _weights(spec: ModelSpec) -> str:
    if spec.replaced_by is not None:
        return f"{spec.hf_id or ''} (needs vLLM {spec.vllm}; use {spec.replaced_by})".lstrip()
    return spec.hf_id or ("with the plugin" if spec.checkpoint else "")
