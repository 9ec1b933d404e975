"""`vlm-run plugins`: what is installed, and what is wrong with it."""

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
"""A plugin whose import takes longer is reported: every command waits for it."""


def plugins(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """List the installed plugins, and what is wrong with them.

    `ok`; `slow`: it takes long to import; `failing`: one of its hooks raises, so that its models,
    or some of what they do, will not work; `broken`: it, or one model type of it, was left out.
    """
    from vlm_run.plugins.discovery import PluginWarning, installed_plugins

    with warnings.catch_warnings():
        # The same is about to be printed.
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
        ["plugin", "version", "status", "model types, or what is wrong"],
        sorted([row["plugin"], row["version"], row["status"], _remark(row)] for row in rows),
    )


def _row(found: Plugins, plugin: Plugin) -> dict[str, Any]:
    from vlm_run.testing.hook_smoke import failures

    causes = failures(found, plugin)
    status = "failing" if causes else "ok"
    if plugin.seconds > SLOW_S:
        status = "failing" if causes else "slow"
        causes = [*causes, f"its import takes {plugin.seconds:.1f} s, for which every command waits"]
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
    """In one line: exceptions may have several."""
    count = len(row["model_types"])
    return " ".join((row["cause"] or f"{count} model type{'' if count == 1 else 's'}").split())
