"""`vlm-run models`: lists the model types of all installed plugins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlm_run.cli.output import print_table
from vlm_run.errors import VlmRunError, printable

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
    checkpoint: Annotated[
        str | None,
        typer.Option(
            metavar="DIRECTORY_OR_ID",
            help="Show how a checkpoint would be served: each field of its spec, with its source.",
        ),
    ] = None,
) -> None:
    """List the model types that installed plugins serve."""
    if checkpoint is not None:
        _show_checkpoint(checkpoint, as_json)
        return
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
                "quantized": list(spec.quantized),
                "modelscope_id": spec.modelscope_id,
                "family": spec.family,
                "plugin": plugin.name,
                "architecture": spec.architecture,
                "context_length": spec.context_length,
                "tasks": dict(spec.tasks),
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


def _show_checkpoint(checkpoint: str, as_json: bool) -> None:
    """Print each field of the spec that a checkpoint gets, with its source."""
    from vlm_run.registry import Registry

    adapter = Registry.load(checkpoint)
    spec = adapter.spec
    listed = f"{adapter.plugin.name}, which lists the model type"
    rows = [
        {"field": name, "value": value, "source": spec.derived_from.get(name, listed)}
        for name, value in spec.model_dump(mode="json").items()
        if name != "derived_from" and (value or name in spec.derived_from)
        if name in spec.derived_from or not spec.derived_from
    ]
    if as_json:
        head = {
            "model_type": spec.model_type,
            "plugin": adapter.plugin.name,
            "derived": bool(spec.derived_from),
        }
        typer.echo(json.dumps({**head, "fields": rows}, indent=2, ensure_ascii=False))
        return
    how = "derives its spec from its files" if spec.derived_from else f"lists it as '{spec.model_type}'"
    typer.echo(f"{checkpoint}: {adapter.plugin.name} {how}\n")
    print_table(
        ["field", "value", "source"],
        [[str(row["field"]), _shortened(row["value"]), str(row["source"])] for row in rows],
    )


def _shortened(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return printable(text, 100)


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
