"""`vlm-run tune`: finds engine options that answer the user's requests faster on this machine."""

from __future__ import annotations

import itertools
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlm_run.cli.options import AsJson, LoadOptions, MaxTokens, Verbose, expand_option_groups
from vlm_run.cli.output import print_table
from vlm_run.errors import VlmRunError

if TYPE_CHECKING:
    from vlm_run.bench.tune import Trial
    from vlm_run.request import Request


@expand_option_groups
def tune(
    load: LoadOptions,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="MODEL", help="Model type, or a checkpoint directory.")
    ] = None,
    val_dataset: Annotated[
        str | None,
        typer.Option(
            metavar="FILE[#N]",
            help="A dataset as for `infer --val_dataset`, of which N rows are asked. Without one, synthetic "
            "images are.",
        ),
    ] = None,
    count: Annotated[
        int, typer.Option(min=2, help="Number of requests, unless the dataset's name gives it.")
    ] = 200,
    max_tokens: MaxTokens = 64,
    output: Annotated[
        Path, typer.Option(help="File for the best options, to be given to other commands with --config.")
    ] = Path("tuned.yaml"),
    seconds: Annotated[float, typer.Option(min=1, help="Time limit of each configuration.")] = 300,
    min_same_answers: Annotated[
        float, typer.Option(min=0, max=1, help="Fraction of answers that must equal the defaults'.")
    ] = 0.9,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Find the fastest engine options on a sample of your requests.

        vlm-run tune qwen2-vl-7b-instruct --val_dataset questions.jsonl#200

    Each configuration runs in an engine of its own; one that runs out of memory or time counts as failed.
    An interrupted run resumes with the same command: finished trials are kept beside the output file.
    """
    from vlm_run.engine.quiet import quieten_model_libraries

    if not verbose:
        quieten_model_libraries()
    from vlm_run.bench.tune import TrialFile, best, candidates, config_text, describe
    from vlm_run.bench.tune import tune as try_all
    from vlm_run.engine.versions import check_serves
    from vlm_run.request import Sampling

    options = load.engine_options()
    adapter = load.load(load.name_alone(words))
    check_serves(adapter.spec)  # before starting processes that would each fail
    requests = _read_requests(val_dataset, count) if val_dataset else _synthetic_requests(count)
    run = {**describe(adapter, requests, options), "max_tokens": max_tokens}
    found = TrialFile(output.with_name(output.name + ".trials.jsonl"), run)
    trials = try_all(
        adapter,
        requests,
        Sampling(max_tokens=max_tokens),
        options,
        found,
        tried=candidates(adapter, len(os.sched_getaffinity(0))),
        seconds=seconds,
        report=lambda trial: typer.echo(_line(trial), err=True),
    )
    chosen = best(trials, min_same_answers)
    if chosen is None:
        raise VlmRunError(f"every configuration failed, the first with: {trials[0].error}")
    output.write_text(config_text(chosen, run), encoding="utf-8")
    if as_json:
        said = {"best": chosen.name, "config": str(output), "trials": [asdict(trial) for trial in trials]}
        typer.echo(json.dumps(said, indent=2))
        return
    _print(trials, chosen)
    typer.echo(f"\n{output} has the options of '{chosen.name}': give it with --config {output}.")


def _read_requests(name: str, count: int) -> list[Request]:
    from vlm_run.batch.row import RowFormat, read_row
    from vlm_run.batch.sources import open_dataset

    dataset = open_dataset(name)
    directory = dataset.directory and dataset.directory.absolute()
    rows = (read_row(number, columns, RowFormat(directory)) for number, columns in dataset.rows())
    requests = [row.request for row in itertools.islice(rows, count) if row.request is not None]
    if len(requests) < 2:
        raise VlmRunError(f"{name} has {len(requests)} rows that can be asked, which are too few to measure")
    return requests


def _synthetic_requests(count: int) -> list[Request]:
    from vlm_run.bench.load import QUERY, synthetic_jpegs
    from vlm_run.request import Request

    images = synthetic_jpegs(count, 672, 672, seed=0)
    return [Request.parse({"query": QUERY, "images": [image]}) for image in images]


def _line(trial: Trial) -> str:
    return f"{trial.name}: {trial.error or f'{trial.requests_per_second} requests/s'}"


def _print(trials: list[Trial], chosen: Trial) -> None:
    print_table(
        ["", "requests/s", "same answers", "options", ""],
        [
            [
                trial.name,
                "–" if trial.requests_per_second is None else f"{trial.requests_per_second:.2f}",
                "–" if trial.same_answers is None else f"{trial.same_answers:.1%}",
                ", ".join(
                    [f"{name}={json.dumps(value)}" for name, value in trial.options.items()]
                    + ([f"--renderers {trial.renderers}"] if trial.renderers is not None else [])
                ),
                "best" if trial is chosen else trial.error or "",
            ]
            for trial in trials
        ],
    )
