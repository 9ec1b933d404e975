"""`vlm-run explain`: the prompt, the cost of each image and the engine options, without an engine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlm_run.cli.completion import complete_model_type
from vlm_run.cli.options import AllowPrivateMedia, AsJson, LoadOptions, Verbose, expand_option_groups
from vlm_run.cli.video_options import VideoOptions

if TYPE_CHECKING:
    from vlm_run.checkpoints.gpu_memory import Gpu, MemoryEstimate
    from vlm_run.explain import Explanation, VideoCost


@expand_option_groups
def explain(
    load: LoadOptions,
    videos: VideoOptions,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL [TEXT]",
            help="Model type, and the question.",
            autocompletion=complete_model_type,
        ),
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option("--image", "-i", help="As for infer, or a size such as 640x480; repeatable."),
    ] = None,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    task: Annotated[str | None, typer.Option(help="A task of the model, as for infer.")] = None,
    served: Annotated[
        bool, typer.Option("--served", help="Show the engine options of `vlm-run serve`.")
    ] = False,
    gpu: Annotated[
        str | None,
        typer.Option(help="Whether the model fits: a GPU's memory in GiB, such as 24, or h100, or h100x2."),
    ] = None,
    allow_private_media: AllowPrivateMedia = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Show what would be sent to a model, and what it costs.

        vlm-run explain qwen2-vl-7b-instruct "What is this?" --image 1920x1080

        vlm-run explain qwen2-vl-7b-instruct --gpu 24

    Needs no GPU and no weights.
    """
    name, text = load.name_and_text(words)
    from vlm_run.explain import explain as explain_conversation
    from vlm_run.media import MediaPolicy
    from vlm_run.request import Request

    request = {"query": text or "", "images": list(image or []), "system": system}
    conversation = Request.parse({**request, **videos.request_fields()}).conversation
    load = videos.allowed_by(load)
    explanation = explain_conversation(
        load.load(name),
        replace(conversation, task=task),
        policy=MediaPolicy(allow_private_addresses=allow_private_media),
        served=served,
        gpu=_parse_gpu(gpu),
        **load.engine_options(),
    )
    if as_json:
        typer.echo(json.dumps(explanation.to_dict(), ensure_ascii=False, indent=2))
        return
    print_explanation(explanation)


def print_explanation(explanation: Explanation) -> None:
    """Print the prompt with its images marked, the token counts, and the engine options with their origin."""
    _print_title(explanation.model_type)
    typer.echo(f"  {explanation.architecture}, served by {explanation.plugin} with vLLM {explanation.vllm}")
    typer.echo(f"  weights: {explanation.source}")
    if explanation.tasks:
        typer.echo(f"  tasks: {', '.join(explanation.tasks)}")
    _print_title("Prompt")
    for line in _mark_placeholders(explanation).splitlines():
        typer.echo(f"  {line}")
    if explanation.images:
        _print_title("Images")
        for number, image in enumerate(explanation.images, 1):
            page = "" if image.page is None else f"page {image.page}, "
            resized = f" -> {image.resized[0]} x {image.resized[1]}" if image.resized else ""
            typer.echo(
                f"  {number}: {page}{image.width} x {image.height}{resized} -> {_format(image.tokens)} tokens"
            )
    if explanation.videos:
        _print_videos(explanation.videos)
    if explanation.box_coordinates is not None:
        _print_title("Boxes")
        typer.echo(f"  coordinates in answers: {explanation.box_coordinates.description}")
    _print_title("Tokens")
    text, images = _format(explanation.text_tokens), _format(explanation.image_tokens)
    videos = f" + videos {_format(explanation.video_tokens)}" if explanation.videos else ""
    typer.echo(f"  text {text} + images {images}{videos} = {_format_total(explanation)}")
    _print_title("Engine")
    for name, layer in explanation.engine_kwargs_from.items():
        typer.echo(f"  {name} = {json.dumps(_look_up(explanation.engine_kwargs, name))}  ({layer})")
    if explanation.memory is not None:
        _print_memory(explanation.memory)
    for note in explanation.notes:
        typer.secho(f"note: {note}", fg="yellow", err=True)


def _print_videos(videos: Sequence[VideoCost]) -> None:
    _print_title("Videos")
    for number, video in enumerate(videos, 1):
        count = len(video.times)
        typer.echo(
            f"  {number}: {video.width} x {video.height} -> {count} frame{'s' if count > 1 else ''} of "
            f"{video.resized[0]} x {video.resized[1]}, {video.fps:.2f} per second -> {video.tokens:,} tokens"
        )
        times = " ".join(f"{time:.2f}" for time in video.times)
        typer.echo(fill(f"at {times} s", 100, initial_indent="     ", subsequent_indent="        "))


def _parse_gpu(text: str | None) -> Gpu | None:
    from vlm_run.checkpoints.gpu_memory import Gpu

    try:
        return None if text is None else Gpu.parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--gpu") from None


def _print_memory(memory: MemoryEstimate) -> None:
    gpus = f"{memory.gpu.count} GPUs of" if memory.gpu.count > 1 else "one GPU of"
    _print_title("GPU memory" + (", on each GPU" if memory.gpu.count > 1 else ""))
    typer.echo(
        f"  {gpus} {_gib(memory.gpu.memory).strip()}, of which vLLM uses {_gib(memory.budget).strip()}"
    )
    typer.echo(f"  weights      {_gib(memory.weights)}  ({memory.weights_from})")
    typer.echo(f"  activations  {_gib(memory.activations)}  (the largest step, of text or images)")
    typer.echo(f"  CUDA         {_gib(memory.overhead)}  (context, libraries and workspaces)")
    rest = f"the rest: {memory.kv_cache_tokens:,} tokens"
    if memory.kv_cache < 0:
        rest = f"the others need {_gib(-memory.kv_cache).strip()} more than there is"
    typer.echo(f"  KV cache     {_gib(max(memory.kv_cache, 0))}  ({rest})")
    length = f"max_model_len, {memory.max_model_len:,} tokens ({_gib(memory.request).strip()} each)"
    if memory.fits:
        typer.echo(f"  It fits: {memory.requests:.1f} requests of {length}")
        return
    typer.echo(f"  It does not fit: not one request of {length}")
    for option in memory.options:
        typer.echo(f"    would fit: {option}")
    if not memory.options:
        typer.echo(
            "    no single option of vLLM makes it fit: use a larger GPU, or a smaller or quantized model"
        )


def _gib(size: int) -> str:
    return f"{size / 2**30:6.2f} GiB"


def _print_title(text: str) -> None:
    typer.secho(text, bold=True)


def _mark_placeholders(explanation: Explanation) -> str:
    """Return the prompt with its image placeholders marked and numbered, and its line breaks visible."""
    prompt, text, position = explanation.prompt, "", 0
    for place in explanation.placeholders:
        text += prompt[position : place.start]
        mark = f"[{prompt[place.start : place.end]} = image {place.image}]"
        text += typer.style(mark, fg="cyan", bold=True)
        position = place.end
    return (text + prompt[position:]).replace("\n", "⏎\n")


def _format_total(explanation: Explanation) -> str:
    total, context = explanation.total_tokens, explanation.max_model_len
    if total is None or context is None:
        return f"{_format(total)} of {_format(context)}"
    return f"{total:,} of {context:,}, which leaves {max(context - total, 0):,} for the answer"


def _format(tokens: int | None) -> str:
    return "?" if tokens is None else f"{tokens:,}"


def _look_up(options: Any, dotted_name: str) -> Any:
    for name in dotted_name.split("."):
        options = options[name]
    return options
