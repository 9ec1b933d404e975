"""`vlm-run verify`: how far vLLM's answers are from those of transformers on the same weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlm_run.cli.options import engine_options
from vlm_run.cli.output import print_table, starting
from vlm_run.errors import RequestError, VlmRunError

if TYPE_CHECKING:
    from vlm_run.verify.drift import Report


def verify(
    name: Annotated[str, typer.Argument(metavar="MODEL", help="Model type, or a folder with weights.")],
    requests: Annotated[
        Path | None,
        typer.Option(help="JSON lines, each a request as in Python, in place of the built-in ones."),
    ] = None,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", "--max-new-tokens", min=1, help="Most tokens in an answer.")
    ] = 64,
    min_agreement: Annotated[
        float | None, typer.Option(min=0, max=1, help="Exit code 1 if fewer tokens agree, from 0 to 1.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Folder or hub id of the weights.")] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Any option of vLLM's engine; repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    verbose: Annotated[bool, typer.Option(help="Show vLLM's own log, and tracebacks.")] = False,
) -> None:
    """Compare vLLM's greedy answers with transformers, token by token, on the same weights.

    vlm-run verify qwen2-vl-2b-instruct --engine dtype=float32
    """
    from vlm_run.engine.tracing import dtype_of, trace
    from vlm_run.engine.versions import check_serves
    from vlm_run.registry import Registry
    from vlm_run.verify.drift import judge, standard_requests
    from vlm_run.verify.reference import check_reference

    options = engine_options(engine or [])
    adapter = Registry.load(name, checkpoint=model)
    asked = _read(requests) if requests else standard_requests(adapter.spec.max_images)
    check_serves(adapter.spec)  # before transformers, which comes with vLLM
    with starting(adapter.spec.model_type, verbose, adapter.dtype_note(**options)):
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
    """Requests by the number of their line."""
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
        except (ValueError, RequestError) as error:
            raise VlmRunError(f"line {number} of {file} is no request: {error}") from None
    if not found:
        raise VlmRunError(f"{file} has no requests", hint="Give one JSON object a line.")
    return found


def _print(report: Report) -> None:
    said = report.to_dict()
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
            for row in said["prompts"]
        ],
    )
    total = said["summary"]
    typer.echo(
        f"\n{total['agreement']:.2%} of {total['tokens']} tokens agree; {total['diverging_prompts']} of "
        f"{total['prompts']} answers diverge; log-probabilities differ by at most "
        f"{total['largest_logprob_difference']:.4f}, {total['mean_logprob_difference']:.4f} on average."
    )
    versions = ", ".join(f"{name} {version}" for name, version in said["versions"].items())
    typer.echo(f"{said['model_type']} in {said['dtype']}: {versions}.")
    for row in said["prompts"]:
        if not row["same_prompt"]:
            typer.secho(
                f"note: transformers makes other token ids of the prompt '{row['prompt']}'",
                fg="yellow",
                err=True,
            )
