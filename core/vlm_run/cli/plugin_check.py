"""`vlm-run plugin check`: the conformance suite on an installed plugin."""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlm_run.cli.output import print_table, quieten_model_libraries
from vlm_run.errors import VlmRunError

if TYPE_CHECKING:
    from vlm_run.testing.suite import Result

_OUTCOMES = ("passed", "failed", "skipped")


def check(
    distribution: Annotated[str, typer.Argument(help="The installed plugin, for example vlm-run-llava.")],
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL_TYPE=DIRECTORY",
            help="Compare with a checkpoint folder, weights not needed; repeatable.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Check that an installed plugin does what vlm-run expects; exit code 1 if it does not.

    vlm-run plugin check vlm-run-llava --checkpoint llava1_5-7b-instruct=./llava-1.5-7b-hf
    """
    folders = dict(map(_folder, checkpoint or []))
    quieten_model_libraries()
    # What plugins and model libraries print must not come between the results.
    with contextlib.redirect_stdout(sys.stderr):
        results = _run(distribution, folders)
    if as_json:
        typer.echo(json.dumps([_row(result) for result in results], indent=2, ensure_ascii=False))
    else:
        _print(results)
    if any(result.outcome == "failed" for result in results):
        raise typer.Exit(1)


def _folder(assignment: str) -> tuple[str, Path]:
    model_type, equals, folder = assignment.partition("=")
    if not equals:
        raise VlmRunError(
            f"--checkpoint {assignment} names no folder", hint="Write --checkpoint MODEL_TYPE=DIRECTORY."
        )
    if not (Path(folder) / "config.json").is_file():
        raise VlmRunError(f"{folder} is no checkpoint folder: it has no config.json")
    return model_type, Path(folder)


def _run(distribution: str, folders: dict[str, Path]) -> list[Result]:
    from vlm_run.plugins.discovery import PluginWarning
    from vlm_run.testing.subject import LeftOutError, find_plugin
    from vlm_run.testing.suite import Result, run_suite

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PluginWarning)
        try:
            subject = find_plugin(distribution)
        except LeftOutError as error:
            return [Result("is_usable", None, "failed", str(error))]
    return list(run_suite(subject, folders))


def _row(result: Result) -> dict[str, str | None]:
    return {
        "check": result.check,
        "model_type": result.model_type,
        "result": result.outcome,
        "detail": result.detail,
    }


def _print(results: list[Result]) -> None:
    """A row for each check and what came of it; model types of which the same is true share one."""
    groups: dict[str, dict[tuple[str, str], list[str]]] = {}
    for result in results:
        group = groups.setdefault(result.check, {})
        group.setdefault((result.outcome, result.detail), []).append(result.model_type or "")
    rows = [
        [check.replace("_", " "), outcome, detail if len(group) == 1 else _naming(of, detail)]
        for check, group in groups.items()
        for (outcome, detail), of in group.items()
    ]
    print_table(["check", "result", "detail"], rows)
    counts = [sum(result.outcome == outcome for result in results) for outcome in _OUTCOMES]
    typer.echo(
        "\n" + ", ".join(f"{count} {outcome}" for count, outcome in zip(counts, _OUTCOMES, strict=True))
    )


def _naming(model_types: list[str], detail: str) -> str:
    return ": ".join(filter(None, [", ".join(model_types), detail]))
