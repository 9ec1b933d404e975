"""`vlm-run infer`: one answer, a data set's, or an interactive session."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlm_run.cli import options as opt
from vlm_run.cli.output import RULE
from vlm_run.errors import VlmRunError

if TYPE_CHECKING:
    from vlm_run.engine import Engine
    from vlm_run.request import Sampling

_ANSWER = "Answer"
_DATA = "Data set"


def infer(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="MODEL [QUESTION]", help="Model type, and what to ask.")
    ] = None,
    image: Annotated[
        list[str] | None, typer.Option("--image", "-i", help="URL, path, base64 or data URI; repeatable.")
    ] = None,
    model_type: opt.ModelType = None,
    model: Annotated[
        str | None, typer.Option(help="Folder or hub id of the weights.", rich_help_panel=opt.MODEL)
    ] = None,
    chat_template: opt.ChatTemplate = None,
    infer_backend: opt.InferBackend = "vllm",
    trust_remote_code: opt.TrustRemoteCode = False,
    system: Annotated[str | None, typer.Option(help="System message.", rich_help_panel=_ANSWER)] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens", "--max-new-tokens", help="Most tokens in an answer.", rich_help_panel=_ANSWER
        ),
    ] = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy.", rich_help_panel=_ANSWER)] = 0.0,
    top_p: Annotated[float, typer.Option(rich_help_panel=_ANSWER)] = 1.0,
    top_k: Annotated[int, typer.Option(help="0 is all.", rich_help_panel=_ANSWER)] = 0,
    repetition_penalty: Annotated[float, typer.Option(rich_help_panel=_ANSWER)] = 1.0,
    seed: Annotated[
        int | None, typer.Option(help="Of sampling, and of the rows that #N takes.", rich_help_panel=_ANSWER)
    ] = None,
    n: Annotated[int, typer.Option("--n", "-n", help="Answers to one request.", rich_help_panel=_ANSWER)] = 1,
    stop: Annotated[
        list[str] | None, typer.Option(help="End the answer here; repeatable.", rich_help_panel=_ANSWER)
    ] = None,
    json_schema: Annotated[
        Path | None, typer.Option(help="File with a schema that answers follow.", rich_help_panel=_ANSWER)
    ] = None,
    choice: Annotated[
        str | None, typer.Option(metavar="A,B,C", help="Answers are one of these.", rich_help_panel=_ANSWER)
    ] = None,
    val_dataset: Annotated[
        str | None,
        typer.Option(
            metavar="DATA[#N]",
            help="JSONL, JSON, CSV or Parquet file, folder of images, Hugging Face data set; N rows of it.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    result_path: Annotated[
        Path | None,
        typer.Option(metavar="OUT.jsonl", help="One line a row; run again to go on.", rich_help_panel=_DATA),
    ] = None,
    subset: Annotated[str | None, typer.Option(help="Of the data set.", rich_help_panel=_DATA)] = None,
    split: Annotated[str | None, typer.Option(help="Of the data set.", rich_help_panel=_DATA)] = None,
    mapping: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="COLUMN=NAME",
            help="What a column is: query, response, images …; repeatable.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="The question of rows that have none.", rich_help_panel=_DATA)
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="rouge, bleu, anls, beside exact_match; repeatable.", rich_help_panel=_DATA),
    ] = None,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Try rows that failed again.", rich_help_panel=_DATA)
    ] = False,
    unordered: Annotated[
        bool, typer.Option("--unordered", help="Write rows as they finish.", rich_help_panel=_DATA)
    ] = False,
    config: opt.Config = None,
    max_model_len: opt.MaxModelLen = None,
    max_images: opt.MaxImages = None,
    min_pixels: opt.MinPixels = None,
    max_pixels: opt.MaxPixels = None,
    tensor_parallel_size: opt.TensorParallelSize = None,
    engine: opt.EngineOptions = None,
    allow_private_media: opt.AllowPrivateMedia = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    stats: Annotated[
        bool, typer.Option("--stats", help="Show tokens and speed after each answer of a session.")
    ] = False,
    verbose: Annotated[bool, typer.Option(help="Show vLLM's own log, and tracebacks.")] = False,
) -> None:
    """Ask a model about images.

    Without a QUESTION or --val_dataset, an interactive session starts.

        vlm-run infer llava1_6-mistral-7b-instruct "What is this?" --image cat.png
    """
    name, question = opt.name_and_question(words or [], model_type or None, model)
    opt.check_backend(infer_backend)
    from vlm_run.cli.output import starting
    from vlm_run.media import MediaPolicy
    from vlm_run.request import Sampling

    sampling = Sampling.parse(
        {
            "max_tokens": max_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "top_k": top_k,
            "repetition_penalty": repetition_penalty,
            "seed": seed,
            "stop": tuple(stop or ()),
            "n": n,
            "json_schema": None if json_schema is None else _read_schema(json_schema),
            "choice": None if choice is None else tuple(each.strip() for each in choice.split(",")),
        }
    )
    options = opt.engine_options(
        engine or [],
        tensor_parallel_size=tensor_parallel_size,
        trust_remote_code=trust_remote_code or None,
    )
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
    policy = MediaPolicy(allow_private_addresses=allow_private_media)

    def start(local_files: bool = True) -> Engine:
        allowed = policy.model_copy(update={"allow_local_files": local_files})
        with starting(adapter.spec.model_type, verbose, adapter.dtype_note(**options)):
            return adapter.engine(policy=allowed, **options)

    if val_dataset is not None:
        if question is not None or image:
            raise VlmRunError(
                "a question and --val_dataset are given", hint="Ask rows without one with --prompt."
            )
        from vlm_run.cli.batch import BatchOptions, answer_data_set

        batch = BatchOptions(
            data=val_dataset,
            result_path=result_path,
            subset=subset,
            split=split,
            mapping=mapping or [],
            prompt=prompt,
            system=system,
            seed=seed,
            metrics=metric or [],
            retry_errors=retry_errors,
            unordered=unordered,
            as_json=as_json,
        )
        answer_data_set(adapter, start, sampling, options, batch)
        return
    with start() as running:
        if question is None:
            from vlm_run.cli.interactive import Session

            Session(running, sampling, system, policy=policy, stats=stats).run()
            return
        request = {"query": question, "images": list(image or []), "system": system}
        answer_once(running, request, sampling, as_json)


def _read_schema(file: Path) -> dict[str, Any]:
    try:
        schema = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise VlmRunError(f"--json-schema {file} cannot be read: {error}") from None
    if not isinstance(schema, dict):
        raise VlmRunError(f"--json-schema {file} is no JSON object")
    return schema


def answer_once(engine: Engine, request: dict[str, Any], sampling: Sampling, as_json: bool) -> None:
    """Print the answer to one request: as it comes, or with what it took as JSON."""
    if as_json:
        (response,) = engine.infer([request], sampling)
        typer.echo(json.dumps(response.to_dict(), ensure_ascii=False))
        if response.error is not None:
            raise typer.Exit(2)
        return
    others: tuple[str, ...] = ()
    for delta in engine.stream(request, sampling):
        typer.echo(delta.text, nl=False)
        if delta.response is not None:
            others = delta.response.responses[1:]
    typer.echo()
    for other in others:
        typer.echo(f"{RULE}\n{other}")
