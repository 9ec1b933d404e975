"""`vlm-run bench`: images per second beside plain vLLM, on the same requests in one run."""

from __future__ import annotations

import json
import os
import platform
from datetime import date
from typing import Annotated, Any

import typer

from vlm_run.cli.options import engine_options
from vlm_run.cli.output import print_table, quieten_model_libraries
from vlm_run.errors import VlmRunError


def bench(
    name: Annotated[str, typer.Argument(metavar="MODEL", help="Model type, or a folder with weights.")],
    size: Annotated[
        str, typer.Option(metavar="WIDTHxHEIGHT", help="Of the pictures, in pixels.")
    ] = "672x672",
    count: Annotated[int, typer.Option(min=1, help="Of pictures, no two the same.")] = 256,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", "--max-new-tokens", min=1, help="Of an answer.")
    ] = 8,
    renderers: Annotated[
        int | None, typer.Option(min=0, help="Renderer processes; by default by the cores.")
    ] = None,
    load_format: Annotated[
        str, typer.Option(help="`dummy` fills the model with random numbers; `auto` loads weights.")
    ] = "dummy",
    model: Annotated[str | None, typer.Option(help="Folder or hub id of the weights.")] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Any option of vLLM's engine, for both; repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    verbose: Annotated[bool, typer.Option(help="Show vLLM's own log, and tracebacks.")] = False,
) -> None:
    """Compare vlm-run with vLLM's own `LLM.generate`: same model, engine options and pictures.

    vlm-run bench qwen2-vl-2b-instruct --size 1344x1008
    """
    if not verbose:
        quieten_model_libraries()
    from vlm_run.engine.bench import Load, compare
    from vlm_run.engine.versions import check_serves, vllm_version
    from vlm_run.registry import Registry

    width, height = _pixels(size)
    options = {"load_format": load_format, **engine_options(engine or [])}
    adapter = Registry.load(name, checkpoint=model)
    check_serves(adapter.spec)  # before the processes that would each find out
    results = compare(adapter, Load(width, height, count, max_tokens, renderers, options))
    ours = results[0].images_per_second
    report: dict[str, Any] = {
        "model_type": adapter.spec.model_type,
        "size": [width, height],
        "options": options,
        "results": [
            {**result.to_dict(), "ratio": round(ours / result.images_per_second, 3)} for result in results
        ],
        "vllm": str(vllm_version()),
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "date": date.today().isoformat(),
    }
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        _print(report)


def _pixels(size: str) -> tuple[int, int]:
    width, _, height = size.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise VlmRunError(f"--size {size} is no size", hint="Write --size WIDTHxHEIGHT, as in 672x672.")
    return int(width), int(height)


def _print(report: dict[str, Any]) -> None:
    print_table(
        ["", "images/s", "prompt tokens/s", "first token p50", "p99", "GPU idle", "vlm-run is"],
        [
            [
                row["side"],
                f"{row['images_per_second']:.2f}",
                f"{row['prompt_tokens_per_second']:.0f}",
                _seconds(row["first_token_seconds_p50"]),
                _seconds(row["first_token_seconds_p99"]),
                "–" if row["gpu_idle"] is None else f"{row['gpu_idle']:.0%}",
                "" if row["side"] == "vlm-run" else f"{row['ratio']:.2f}×",
            ]
            for row in report["results"]
        ],
    )
    width, height = report["size"]
    typer.echo(
        f"\n{report['model_type']}, {report['results'][0]['images']} pictures of {width}×{height}, "
        f"vLLM {report['vllm']}, {report['cores']} cores, {report['date']}."
    )


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} s"
