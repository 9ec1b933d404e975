"""`vlm-run demo`: draw a picture and ask the demo model about it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from vlm_run.errors import VlmRunError


def demo(
    picture: Annotated[Path, typer.Option(help="Where the picture goes.")] = Path("demo-picture.png"),
    seed: Annotated[int, typer.Option(help="Another seed, another picture.")] = 7,
    verbose: Annotated[bool, typer.Option(help="Show vLLM's own log, and tracebacks.")] = False,
) -> None:
    """Draw a picture and ask a small model three questions about it, with real vLLM."""
    try:
        from vlm_run_demo.showcase import draw
    except ImportError as error:
        raise VlmRunError("the demo plugin is not installed", hint="pip install vlm-run-demo") from error
    from vlm_run.cli.output import starting
    from vlm_run.registry import Registry

    image, turns = draw(seed)
    image.save(picture)
    typer.echo(f"Drew {picture} ({image.width} × {image.height} pixels).")
    started = time.perf_counter()
    adapter = Registry.load("demo-llava")
    with starting("demo-llava", verbose, adapter.dtype_note()):
        engine = adapter.engine()
    with engine:
        typer.echo(f"Loaded demo-llava in {time.perf_counter() - started:.1f} s.")
        for turn in turns:
            (response,) = engine.infer([{"query": turn.question, "images": [str(picture)]}])
            response.raise_for_error()
            verdict = "right" if response.response == turn.answer else f"wrong, it is {turn.answer}"
            typer.echo(f"\n{turn.question}\n  {response.response} ({verdict})")
            typer.secho(
                f"  {response.seconds:.2f} s, {response.usage.prompt_tokens} prompt tokens, "
                f"{sum(response.usage.image_tokens)} of them image",
                dim=True,
            )
