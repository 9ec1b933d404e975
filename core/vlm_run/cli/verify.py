"""`vlm-run verify`: compares vLLM's answers with those of transformers on the same weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlm_run.cli.options import AsJson, LoadOptions, MaxTokens, ModelArgument, Verbose, expand_option_groups
from vlm_run.cli.output import print_table, starting
from vlm_run.errors import RequestError, VlmRunError

if TYPE_CHECKING:
    from vlm_run.verify.drift import Report


@expand_option_groups
def verify(
    load: LoadOptions,
    words: ModelArgument = None,
    requests: Annotated[
        Path | None,
        typer.Option(help="JSON Lines file of requests to use in place of the built-in ones."),
    ] = None,
    max_tokens: MaxTokens = 64,
    min_agreement: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Exit with code 1 if a smaller fraction of the tokens agrees."),
    ] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Compare vLLM's greedy answers with those of transformers.

    Both have the same weights.

        vlm-run verify qwen2-vl-2b-instruct --engine dtype=float32
    """
    from vlm_run.engine.tracing import dtype_of, trace
    from vlm_run.engine.versions import check_serves
    from vlm_run.explain.start_notes import start_notes
    from vlm_run.verify.drift import judge, standard_requests
    from vlm_run.verify.reference import check_reference

    options = load.engine_options()
    adapter = load.load(load.name_alone(words))
    asked = _read(requests) if requests else standard_requests(adapter.spec.max_images)
    check_serves(adapter.spec)  # before importing transformers, which comes with vLLM
    with starting(adapter.spec.model_type, verbose, *start_notes(adapter, **options)):
        check_reference(adapter)
        running = adapter.engine(**options)
    with running:
        traces = trace(running, list(asked.values()), max_tokens)
        dtype = dtype_of(running)
    typer.secho("Comparing with transformers …", err=True)
    report = judge(adapter.with_engine_kwargs(options), asked, traces, dtype)
    if as_json:
        typer.echo(json.dumps(report.to_dict(), ensure_ascii=False, indent=2))
    else:
        _print(report)
    if min_agreement is not None and report.agreement < min_agreement:
        raise typer.Exit(1)


def _read(file: Path) -> dict[str, Any]:
    """Read requests from a JSON Lines file, keyed by line number."""
    from vlm_run.request import Request

    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise VlmRunError(f"the requests cannot be read: {error}") from None
    found = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found[f"line {number}"] = Request.parse(json.loads(line))
        except (ValueError, RecursionError, RequestError) as error:
            raise VlmRunError(f"line {number} of {file} is not a request: {error}") from None
    if not found:
        raise VlmRunError(f"{file} has no requests", hint="Write one JSON object per line.")
    return found


def _print(report: Report) -> None:
    content = report.to_dict()
    print_table(
        ["prompt", "tokens", "agree", "first divergence", "largest log-probability difference"],
        [
            [
                row["prompt"],
                str(row["tokens"]),
                f"{row['agreement']:.1%}",
                "none" if row["first_divergence"] is None else f"token {row['first_divergence'] + 1}",
                f"{row['largest_logprob_difference']:.4f}",
            ]
            for row in content["prompts"]
        ],
    )
    total = content["summary"]
    typer.echo(
        f"\n{total['agreement']:.2%} of {total['tokens']} tokens agree; {total['diverging_prompts']} of "
        f"{total['prompts']} answers diverge; log-probabilities differ by at most "
        f"{total['largest_logprob_difference']:.4f}, {total['mean_logprob_difference']:.4f} on average."
    )
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    typer.echo(f"{content['model_type']} in {content['dtype']}: {versions}.")
    for row in content["prompts"]:
        if not row["same_prompt"]:
            typer.secho(
                f"note: transformers tokenizes the prompt '{row['prompt']}' differently",
                fg="yellow",
                err=True,
            )
