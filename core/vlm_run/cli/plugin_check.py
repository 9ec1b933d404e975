"""`vlm-run plugin check`: runs the conformance suite on an installed plugin."""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlm_run.cli.output import print_table
from vlm_run.errors import VlmRunError

if TYPE_CHECKING:
    from vlm_run.testing.suite import Result

_OUTCOMES = ("passed", "failed", "skipped")


def check(
    distribution: Annotated[
        str,
        typer.Argument(metavar="PLUGIN", help="Distribution name of the plugin, for example vlm-run-llava."),
    ],
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL_TYPE=DIRECTORY",
            help="Compare with a checkpoint, whose weights are not needed; repeatable.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check an installed plugin against the contract.

    The exit code is 1 if a check fails.

        vlm-run plugin check vlm-run-llava --checkpoint llava1_5-7b-instruct=./llava-1.5-7b-hf
    """
    directories = dict(map(_parse_checkpoint, checkpoint or []))
    from vlm_run.engine.quiet import quieten_model_libraries

    quieten_model_libraries()
    # Keep what plugins and model libraries print out of the results.
    with contextlib.redirect_stdout(sys.stderr):
        results = _run(distribution, directories)
    if as_json:
        typer.echo(json.dumps([_row(result) for result in results], indent=2, ensure_ascii=False))
    else:
        _print(results)
    if any(result.outcome == "failed" for result in results):
        raise typer.Exit(1)


def _parse_checkpoint(assignment: str) -> tuple[str, Path]:
    model_type, equals, directory = assignment.partition("=")
    if not equals:
        raise VlmRunError(
            f"--checkpoint {assignment} names no directory", hint="Write --checkpoint MODEL_TYPE=DIRECTORY."
        )
    if not (Path(directory) / "config.json").is_file():
        raise VlmRunError(f"{directory} is not a checkpoint directory: it has no config.json")
    return model_type, Path(directory)


def _run(distribution: str, directories: dict[str, Path]) -> list[Result]:
    from vlm_run.plugins.discovery import PluginWarning
    from vlm_run.testing.subject import LeftOutError, find_plugin
    from vlm_run.testing.suite import Result, run_suite

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PluginWarning)
        try:
            subject = find_plugin(distribution)
        except LeftOutError as error:
            return [Result("is_usable", None, "failed", str(error))]
    return list(run_suite(subject, directories))


def _row(result: Result) -> dict[str, str | None]:
    return {
        "check": result.check,
        "model_type": result.model_type,
        "result": result.outcome,
        "detail": result.detail,
    }


def _print(results: list[Result]) -> None:
    """Print a row per check and result; model types with the same result share one."""
    groups: dict[str, dict[tuple[str, str], list[str]]] = {}
    for result in results:
        group = groups.setdefault(result.check, {})
        group.setdefault((result.outcome, result.detail), []).append(result.model_type or "")
    rows = [
        [check.replace("_", " "), outcome, _detail(detail, model_types, len(group) > 1)]
        for check, group in groups.items()
        for (outcome, detail), model_types in group.items()
    ]
    print_table(["check", "result", "detail"], rows)
    counts = [sum(result.outcome == outcome for result in results) for outcome in _OUTCOMES]
    typer.echo(
        "\n" + ", ".join(f"{count} {outcome}" for count, outcome in zip(counts, _OUTCOMES, strict=True))
    )


def _detail(detail: str, model_types: list[str], named: bool) -> str:
    """Return the last column: the detail, after the model types if others have another result."""
    return ": ".join(filter(None, [", ".join(model_types) if named else "", detail]))
