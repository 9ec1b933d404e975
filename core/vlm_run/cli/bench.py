"""`vlm-run bench`: throughput beside plain vLLM, offline or served, on the same requests."""

from __future__ import annotations

import json
import os
import platform
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlm_run.cli.options import AsJson, LoadOptions, MaxTokens, ModelArgument, Verbose, expand_option_groups
from vlm_run.cli.output import print_table
from vlm_run.errors import EngineError, VlmRunError

if TYPE_CHECKING:
    from vlm_run.adapter import Adapter
    from vlm_run.bench.load import Load, Result, Size


@expand_option_groups
def bench(
    load: LoadOptions,
    words: ModelArgument = None,
    size: Annotated[
        list[str] | None,
        typer.Option(metavar="WIDTHxHEIGHT", help="Image size in pixels; repeatable. Defaults to 672x672."),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Number of images, all different.")] = 256,
    max_tokens: MaxTokens = 8,
    renderers: Annotated[
        int | None,
        typer.Option(min=0, help="Renderer processes. Defaults to a number that suits the cores."),
    ] = None,
    served: Annotated[
        bool, typer.Option("--served", help="Compare the servers instead of the engines.")
    ] = False,
    clients: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Concurrent clients of a server; repeatable. Defaults to 1, 8 and 64."),
    ] = None,
    api_servers: Annotated[
        int | None,
        typer.Option(min=2, help="Also measure vLLM's server with this many API processes."),
    ] = None,
    rounds: Annotated[
        int,
        typer.Option(min=1, help="The sides run together and are measured in turns. 1: one after the other."),
    ] = 3,
    images: Annotated[
        bool, typer.Option("--images/--no-images", help="Ask about images, or with text alone.")
    ] = True,
    plain: Annotated[
        list[str] | None,
        typer.Option(
            metavar="own|same",
            help="How plain vLLM is run: as installed, or with vlm-run's engine options and plugins; "
            "repeatable. Defaults to own.",
        ),
    ] = None,
    profile: Annotated[
        Path | None,
        typer.Option(
            metavar="DIRECTORY",
            help="Instead, write a trace of vlm-run by vLLM's profiler, and print where the time of an "
            "image goes.",
        ),
    ] = None,
    load_format: Annotated[
        str, typer.Option(help="`dummy` uses random weights; `auto` loads the checkpoint's.")
    ] = "dummy",
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Compare the throughput of vlm-run and plain vLLM. Both get the same engine options and images.

        vlm-run bench qwen2-vl-2b-instruct --size 672x672 --size 1344x1008

    Compares with `LLM.generate`, or with --served with vLLM's own server. All sides run on the same GPU,
    each with an equal part of its memory unless --engine gpu_memory_utilization is given. They start one
    after the other, or with --engine kv_cache_memory_bytes=BYTES all at once.
    """
    from vlm_run.engine.quiet import quieten_model_libraries

    if not verbose:
        quieten_model_libraries()
    from vlm_run.bench.load import Load
    from vlm_run.engine.versions import check_serves, vllm_version

    sizes = tuple(dict.fromkeys(_parse_size(each) for each in size or ["672x672"]))
    options = {"load_format": load_format, **load.engine_options()}
    adapter = load.load(load.name_alone(words))
    check_serves(adapter.spec)  # before starting processes that would each fail
    workload = Load(
        sizes,
        count,
        max_tokens,
        renderers,
        options,
        rounds,
        tuple(clients or (1, 8, 64)),
        api_servers,
        images,
        _parse_plain(plain),
    )
    if profile is not None:
        from vlm_run.bench.profile import profile as profile_engine

        profiled = profile_engine(adapter, workload, profile)
        typer.echo(json.dumps(profiled.to_dict(), indent=2) if as_json else profiled.table())
        return
    report: dict[str, Any] = {
        "model_type": adapter.spec.model_type,
        "options": options,
        "results": _results(adapter, workload, served),
        "vllm": str(vllm_version()),
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "date": date.today().isoformat(),
    }
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        print_report(report)


def _results(adapter: Adapter, workload: Load, served: bool) -> list[dict[str, Any]]:
    """Measure each side, and compute vlm-run's throughput as a multiple of it."""
    if served:
        from vlm_run.bench.served import compare
    else:
        from vlm_run.bench.offline import compare
    try:
        results = compare(adapter, workload)
    except EngineError as error:
        if os.path.isdir(adapter.source):
            raise
        raise EngineError(
            error.cause,
            hint=f"{adapter.source} was looked for on the Hugging Face hub. Without access to it, give a "
            "directory with --model; `python benchmarks/checkpoints.py DIRECTORY`, in vlm-run's repository, "
            "writes checkpoints with real dimensions and no weights.",
        ) from error
    first: dict[tuple[Size | None, int | None], Result] = {}
    rows = []
    for result in results:
        ours = first.setdefault((result.size, result.clients), result)
        rows.append(
            {
                **result.to_dict(),
                "same_answers": round(result.same_answers(ours), 3),
                "ratio": round(ours.images_per_second / result.images_per_second, 3),
            }
        )
    return rows


def _parse_size(size: str) -> tuple[int, int]:
    width, _, height = size.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise VlmRunError(f"--size {size} is not a size", hint="Write --size WIDTHxHEIGHT, as in 672x672.")
    return int(width), int(height)


def _parse_plain(plain: list[str] | None) -> tuple[str, ...]:
    from vlm_run.bench.load import OWN, SAME

    for name in plain or ():
        if name not in (OWN, SAME):
            raise VlmRunError(f"--plain {name} is unknown", hint=f"Choose {OWN} or {SAME}.")
    return tuple(dict.fromkeys(plain or (OWN,)))


def print_report(report: dict[str, Any]) -> None:
    """Print the results as a table."""
    stages = ("fetch", "decode", "process", "engine", "waiting")
    rows = report["results"]
    print_table(
        [
            *("", "size", "clients", "images/s", "prompt tokens/s", "first token p50", "p99"),
            *stages,
            *("GPU idle", "GPU ms/image", "CPU ms/image", "same answers", "vlm-run is"),
        ],
        [
            [
                row["side"],
                "{}x{}".format(*row["size"]),
                _or_dash(row["clients"], "{}"),
                f"{row['images_per_second']:.2f}",
                f"{row['prompt_tokens_per_second']:.0f}",
                _or_dash(row["first_token_seconds_p50"], "{:.3f} s"),
                _or_dash(row["first_token_seconds_p99"], "{:.3f} s"),
                *(_or_dash(row["stages"] and row["stages"][stage], "{:.0%}") for stage in stages),
                _or_dash(row["gpu_idle"], "{:.0%}"),
                _or_dash(row["gpu_ms_per_image"], "{:.1f}"),
                _or_dash(row["cpu_ms_per_image"], "{:.0f}"),
                f"{row['same_answers']:.1%}",
                "" if row["side"].startswith("vlm-run") else f"{row['ratio']:.2f}×",
            ]
            for row in rows
        ],
    )
    typer.echo(
        f"\n{report['model_type']}, {rows[0]['images']} images each, vLLM {report['vllm']}, "
        f"{report['cores']} cores, {report['date']}."
    )


def _or_dash(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)
