"""`vlm-run explain`: the prompt, what each image costs, and the engine's options, without an engine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlm_run.cli import options as opt

if TYPE_CHECKING:
    from vlm_run.explain import Explanation


def explain(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="MODEL [TEXT]", help="Model type, and what would be asked.")
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option("--image", "-i", help="As for infer, or a size such as 640x480; repeatable."),
    ] = None,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    model_type: opt.ModelType = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Folder or hub id of the weights, whose tokenizer.json is read if it is at hand.",
            rich_help_panel=opt.MODEL,
        ),
    ] = None,
    chat_template: opt.ChatTemplate = None,
    config: opt.Config = None,
    max_model_len: opt.MaxModelLen = None,
    max_images: opt.MaxImages = None,
    min_pixels: opt.MinPixels = None,
    max_pixels: opt.MaxPixels = None,
    tensor_parallel_size: opt.TensorParallelSize = None,
    engine: opt.EngineOptions = None,
    allow_private_media: opt.AllowPrivateMedia = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    verbose: Annotated[bool, typer.Option(help="Show tracebacks.")] = False,
) -> None:
    """Show what a model would be sent and what it costs. Needs no GPU and no weights.

    vlm-run explain qwen2-vl-7b-instruct "What is this?" --image 1920x1080
    """
    name, text = opt.name_and_question(words or [], model_type or None, model)
    from vlm_run.explain import explain as explain_conversation
    from vlm_run.media import MediaPolicy
    from vlm_run.prompts.conversation import Conversation

    options = opt.engine_options(engine or [], tensor_parallel_size=tensor_parallel_size)
    adapter = opt.load(
        name,
        checkpoint=model,
        chat_template=chat_template,
        config=config,
        max_images=max_images,
        max_model_len=max_model_len,
        min_pixels=min_pixels,
        max_pixels=max_pixels,
    )
    explanation = explain_conversation(
        adapter,
        Conversation.from_query(text or "", images=list(image or []), system=system),
        policy=MediaPolicy(allow_private_addresses=allow_private_media),
        **options,
    )
    if as_json:
        typer.echo(json.dumps(explanation.to_dict(), ensure_ascii=False, indent=2))
        return
    print_explanation(explanation)


def print_explanation(said: Explanation) -> None:
    """For people: the prompt with its pictures marked, tokens, and engine options with their origin."""
    _title(said.model_type)
    typer.echo(f"  {said.architecture}, served by {said.plugin} with vLLM {said.vllm}")
    typer.echo(f"  weights: {said.source}")
    _title("Prompt")
    for line in _visible(said).splitlines():
        typer.echo(f"  {line}")
    if said.images:
        _title("Images")
        for number, image in enumerate(said.images, 1):
            resized = f" -> {image.resized[0]} x {image.resized[1]}" if image.resized else ""
            typer.echo(
                f"  {number}: {image.width} x {image.height}{resized} -> {_count(image.tokens)} tokens"
            )
    _title("Tokens")
    typer.echo(f"  text {_count(said.text_tokens)} + images {_count(said.image_tokens)} = {_total(said)}")
    _title("Engine")
    for name, layer in said.engine_kwargs_from.items():
        typer.echo(f"  {name} = {json.dumps(_value(said.engine_kwargs, name))}  ({layer})")
    for note in said.notes:
        typer.secho(f"note: {note}", fg="yellow", err=True)


def _title(text: str) -> None:
    typer.secho(text, bold=True)


def _visible(said: Explanation) -> str:
    """The prompt with its pictures' placeholders marked and numbered, and its line ends shown."""
    text, position = "", 0
    for place in said.placeholders:
        text += said.prompt[position : place.start]
        mark = f"[{said.prompt[place.start : place.end]} = image {place.image}]"
        text += typer.style(mark, fg="cyan", bold=True)
        position = place.end
    return (text + said.prompt[position:]).replace("\n", "⏎\n")


def _total(said: Explanation) -> str:
    context = _count(said.max_model_len)
    if said.total_tokens is None or said.max_model_len is None:
        return f"{_count(said.total_tokens)} of {context}"
    left = said.max_model_len - said.total_tokens
    return f"{said.total_tokens:,} of {context}, which leaves {max(left, 0):,} for the answer"


def _count(tokens: int | None) -> str:
    return "?" if tokens is None else f"{tokens:,}"


def _value(options: Any, dotted: str) -> Any:
    for name in dotted.split("."):
        options = options[name]
    return options
