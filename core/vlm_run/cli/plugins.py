"""`vlm-run plugins`: lists the installed plugins and their problems."""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlm_run.cli.output import print_table

if TYPE_CHECKING:
    from vlm_run.plugins.discovery import BrokenPlugin, Plugin, Plugins

SLOW_S = 2.0
"""A plugin that takes longer to import is reported, since every command waits for it."""


def plugins(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the installed plugins and their problems.

    The status is `ok`; `slow` if the plugin takes long to import; `failing` if one of its hooks raises,
    so that some features of its models do not work; `broken` if the plugin, or a model type of it, could
    not be loaded.
    """
    from vlm_run.plugins.discovery import PluginWarning, installed_plugins

    with warnings.catch_warnings():
        # The table says the same.
        warnings.simplefilter("ignore", PluginWarning)
        found = installed_plugins()
    with contextlib.redirect_stdout(sys.stderr):
        rows = [_row(found, plugin) for plugin in found.healthy] + [
            _broken_row(each) for each in found.broken
        ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    print_table(
        ["plugin", "version", "status", "model types or problem"],
        sorted([row["plugin"], row["version"], row["status"], _remark(row)] for row in rows),
    )


def _row(found: Plugins, plugin: Plugin) -> dict[str, Any]:
    from vlm_run.testing.hook_smoke import failures, remarks

    causes = failures(found, plugin)
    status = "failing" if causes else "ok"
    if plugin.seconds > SLOW_S:
        status = "failing" if causes else "slow"
        causes = [*causes, f"its import takes {plugin.seconds:.1f} s, which every command waits for"]
    causes = [*causes, *remarks(found, plugin)]
    return {
        "plugin": plugin.name,
        "version": plugin.version,
        "status": status,
        "model_types": [spec.model_type for spec in plugin.specs],
        "cause": "; ".join(causes) or None,
    }


def _broken_row(broken: BrokenPlugin) -> dict[str, Any]:
    return {
        "plugin": broken.name,
        "version": broken.version,
        "status": "broken",
        "model_types": [],
        "cause": broken.cause,
    }


def _remark(row: dict[str, Any]) -> str:
    """Return the last column on one line; the text of an exception may have several."""
    count = len(row["model_types"])
    return " ".join((row["cause"] or f"{count} model type{'' if count == 1 else 's'}").split())
