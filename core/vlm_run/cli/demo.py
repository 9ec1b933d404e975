"""`vlm-run demo`: draws an image and asks the demo model about it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from vlm_run.errors import VlmRunError


def demo(
    image: Annotated[
        Path, typer.Option("--image", "--picture", help="File that the image is written to.")
    ] = Path("demo-image.png"),
    seed: Annotated[int, typer.Option(help="Seed of the random image.")] = 7,
    verbose: Annotated[bool, typer.Option(help="Show vLLM's log and full tracebacks.")] = False,
) -> None:
    """Draw an image, and ask a small model about it with real vLLM."""
    try:
        from vlm_run_demo.showcase import draw
    except ImportError as error:
        raise VlmRunError("the demo plugin is not installed", hint="pip install vlm-run-demo") from error
    from vlm_run.cli.output import starting
    from vlm_run.explain.start_notes import start_notes
    from vlm_run.registry import Registry

    drawing, turns = draw(seed)
    drawing.save(image)
    typer.echo(f"Drew {image} ({drawing.width} × {drawing.height} pixels).")
    started = time.perf_counter()
    adapter = Registry.load("demo-llava")
    with starting("demo-llava", verbose, *start_notes(adapter)):
        engine = adapter.engine()
    with engine:
        typer.echo(f"Loaded demo-llava in {time.perf_counter() - started:.1f} s.")
        for turn in turns:
            (response,) = engine.infer([{"query": turn.question, "images": [str(image)]}])
            response.raise_for_error()
            verdict = "right" if response.response == turn.answer else f"wrong, the answer is {turn.answer}"
            typer.echo(f"\n{turn.question}\n  {response.response} ({verdict})")
            typer.secho(
                f"  {response.seconds:.2f} s, {response.usage.prompt_tokens} prompt tokens, "
                f"{sum(response.usage.image_tokens)} of them image",
                dim=True,
            )
