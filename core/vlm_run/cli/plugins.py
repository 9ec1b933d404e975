"""`vlm-run plugins`: what is installed, and what was left out and why."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlm_run.cli.output import print_table

if TYPE_CHECKING:
    from vlm_run.discovery import Plugins


def plugins(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """List the installed plugins, and those that could not be used, with their causes."""
    from vlm_run.discovery import PluginWarning, installed_plugins

    with warnings.catch_warnings():
        # The same is about to be printed.
        warnings.simplefilter("ignore", PluginWarning)
        found = installed_plugins()
    if as_json:
        typer.echo(json.dumps(_rows(found), indent=2))
        return
    healthy = [
        [plugin.name, plugin.version, "ok", f"{len(plugin.specs)} model types"] for plugin in found.healthy
    ]
    broken = [[plugin.name, plugin.version, "broken", plugin.cause] for plugin in found.broken]
    print_table(
        ["plugin", "version", "status", "model types, or why it was left out"], sorted(healthy + broken)
    )


def _rows(found: Plugins) -> list[dict[str, Any]]:
    healthy = [
        {
            "plugin": plugin.name,
            "version": plugin.version,
            "status": "ok",
            "model_types": [spec.model_type for spec in plugin.specs],
            "cause": None,
        }
        for plugin in found.healthy
    ]
    broken = [
        {
            "plugin": plugin.name,
            "version": plugin.version,
            "status": "broken",
            "model_types": [],
            "cause": plugin.cause,
        }
        for plugin in found.broken
    ]
    return healthy + broken
