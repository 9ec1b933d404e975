"""`vlm-run infer`: answers one question, a dataset, or the questions of an interactive session."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlm_run.cli.answer_log import AnswerLog
from vlm_run.cli.batch import BatchOptions, answer_dataset
from vlm_run.cli.completion import complete_model_type
from vlm_run.cli.draw import Drawing
from vlm_run.cli.options import (
    AllowPrivateMedia,
    AsJson,
    HubOption,
    LoadOptions,
    Verbose,
    expand_option_groups,
)
from vlm_run.cli.output import RULE, starting
from vlm_run.cli.replicas import RAY, RayAddress, Replicas
from vlm_run.cli.video_options import VideoOptions
from vlm_run.errors import RequestError, VlmRunError
from vlm_run.extras import check_library

if TYPE_CHECKING:
    from vlm_run.adapter import Adapter
    from vlm_run.batch.run import Answering
    from vlm_run.engine import Engine
    from vlm_run.media import MediaPolicy
    from vlm_run.request import Request, Sampling
    from vlm_run.response import Response

_ANSWER = "Answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerOptions:
    """How answers are generated.

    Attributes:
        system: The system message of requests that have none.
        task: The task of requests that have none.
        max_tokens: Maximum number of tokens per answer.
        temperature: Sampling temperature; 0 is greedy.
        top_p: Probability mass of the tokens that are considered.
        top_k: Number of tokens that are considered; 0 is all.
        repetition_penalty: Penalty for tokens that have occurred.
        seed: Seed of sampling, and of the rows that are drawn from a dataset.
        n: Number of answers per request.
        stop: Strings that end an answer.
        json_schema: A file with a JSON schema that answers follow.
        choice: Comma-separated answers to choose from.
    """

    system: Annotated[str | None, typer.Option(help="System message.", rich_help_panel=_ANSWER)] = None
    task: Annotated[
        str | None,
        typer.Option(
            help="Task of the model (`vlm-run explain` lists them). Its text precedes the question.",
            rich_help_panel=_ANSWER,
        ),
    ] = None
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens",
            "--max-new-tokens",
            help="Maximum number of tokens per answer.",
            rich_help_panel=_ANSWER,
        ),
    ] = None
    temperature: Annotated[
        float, typer.Option(help="Sampling temperature; 0 is greedy.", rich_help_panel=_ANSWER)
    ] = 0.0
    top_p: Annotated[
        float, typer.Option(help="Probability mass of the tokens considered.", rich_help_panel=_ANSWER)
    ] = 1.0
    top_k: Annotated[
        int, typer.Option(help="Number of tokens considered; 0 is all.", rich_help_panel=_ANSWER)
    ] = 0
    repetition_penalty: Annotated[
        float, typer.Option(help="Penalty for tokens that have occurred.", rich_help_panel=_ANSWER)
    ] = 1.0
    seed: Annotated[
        int | None,
        typer.Option(help="Seed of sampling, and of the rows drawn by #N.", rich_help_panel=_ANSWER),
    ] = None
    n: Annotated[
        int, typer.Option("--n", "-n", help="Number of answers per request.", rich_help_panel=_ANSWER)
    ] = 1
    stop: Annotated[
        list[str] | None,
        typer.Option(help="String that ends the answer; repeatable.", rich_help_panel=_ANSWER),
    ] = None
    json_schema: Annotated[
        Path | None,
        typer.Option(help="File with a JSON schema that answers follow.", rich_help_panel=_ANSWER),
    ] = None
    choice: Annotated[
        str | None,
        typer.Option(metavar="A,B,C", help="Answers to choose from.", rich_help_panel=_ANSWER),
    ] = None

    def sampling(self) -> Sampling:
        """Return the sampling parameters.

        Raises:
            VlmRunError: A value is out of range, or the schema cannot be read.
        """
        from vlm_run.request import Sampling

        return Sampling.parse(
            {
                "max_tokens": self.max_tokens,
                "temperature": self.temperature,
                "top_p": self.top_p,
                "top_k": self.top_k,
                "repetition_penalty": self.repetition_penalty,
                "seed": self.seed,
                "stop": tuple(self.stop or ()),
                "n": self.n,
                "json_schema": None if self.json_schema is None else _read_schema(self.json_schema),
                "choice": None
                if self.choice is None
                else tuple(each.strip() for each in self.choice.split(",")),
            }
        )


@expand_option_groups
def infer(
    load: LoadOptions,
    answer: AnswerOptions,
    batch: BatchOptions,
    videos: VideoOptions,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL [QUESTION]",
            help="Model type, and the question.",
            autocompletion=complete_model_type,
        ),
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(
            "--image",
            "-i",
            help="URL, path, base64 or data URI, also of a PDF (doc.pdf#page=3-5); repeatable.",
        ),
    ] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PATH",
            help="LoRA adapter for requests that name it; repeatable. One alone is used for all requests.",
        ),
    ] = None,
    draw: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the image with the boxes of the answer drawn on it."),
    ] = None,
    replicas: Replicas = None,
    ray: RayAddress = None,
    hub: HubOption = "huggingface",
    allow_private_media: AllowPrivateMedia = False,
    log: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Append every answer to a file, as a line of JSON.")
    ] = None,
    as_json: AsJson = False,
    stats: Annotated[
        bool, typer.Option("--stats", help="Show token counts and speed after each answer of a session.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Ask a model about images.

    Without a QUESTION, --task or --val_dataset, an interactive session starts.

        vlm-run infer llava1_6-mistral-7b-instruct "What is this?" --image cat.png
    """
    name, question = load.name_and_text(words)
    from vlm_run.explain.start_notes import start_notes
    from vlm_run.media import MediaPolicy

    video_fields, load = videos.request_fields(), videos.allowed_by(load)
    sampling, options = answer.sampling(), {**load.engine_options(), **_lora_options(lora or [])}
    adapter = load.load(name, hub)
    _check_supported(adapter, answer.task, videos=bool(video_fields))
    policy = MediaPolicy(allow_private_addresses=allow_private_media)
    if batch.val_dataset is not None:
        _check_dataset_alone(draw, log, asked=question is not None or bool(image or video_fields))
        start = partial(_started_for_rows, adapter, options, policy, replicas, ray, verbose)
        answer_dataset(
            adapter,
            start,
            sampling,
            options,
            batch,
            system=answer.system,
            task=answer.task,
            seed=answer.seed,
            as_json=as_json,
        )
        return
    asked = question is not None or answer.task is not None
    _check_question(asked, draw, videos=bool(video_fields), on_ray=replicas is not None or ray is not None)
    answers = AnswerLog(log, adapter.spec.model_type, sampling)
    drawing = None if draw is None else Drawing.prepare(draw, adapter, question or "", image or [], policy)
    with ExitStack() as running:
        with starting(adapter.spec.model_type, verbose, *start_notes(adapter, **options)):
            engine = running.enter_context(adapter.engine(policy=policy, **options))
        if not asked:
            from vlm_run.cli.interactive import Session

            Session(engine, sampling, answer.system, answers, policy=policy, stats=stats).run()
            return
        request = {"query": question or "", "images": list(image or []), "system": answer.system}
        request |= video_fields
        if answer.task is not None:
            request["task"] = answer.task
        response = answer_once(engine, request, sampling, answers, as_json)
    if drawing is not None:
        drawing.write(response.boxes)


def _lora_options(adapters: list[str]) -> dict[str, Any]:
    """Return the engine's options for LoRA adapters, each given as NAME=PATH."""
    if not adapters:
        return {}
    from vlm_run.engine.lora import read_adapters_and_default

    loras, default = read_adapters_and_default(adapters)
    return {"loras": loras, "lora": default}


@contextmanager
def _started_for_rows(
    adapter: Adapter,
    options: dict[str, Any],
    policy: MediaPolicy,
    replicas: int | None,
    address: str | None,
    verbose: bool,
    first_request: Request | None,
    allow_local_files: bool,
) -> Iterator[Answering]:
    """Start what answers a dataset, until the block ends: an engine here, or replicas on Ray."""
    from vlm_run.explain.start_notes import start_notes

    policy = policy.model_copy(update={"allow_local_files": allow_local_files})
    with ExitStack() as running:
        with starting(adapter.spec.model_type, verbose, *start_notes(adapter, **options)):
            if replicas is None and address is None:
                engine: Answering = running.enter_context(adapter.engine(policy=policy, **options))
            else:
                check_library(*RAY)
                from vlm_run.ray.batch import started_replicas

                engine = running.enter_context(
                    started_replicas(
                        adapter,
                        replicas or 1,
                        address=address,
                        policy=policy,
                        options=options,
                        first_request=first_request,
                        verbose=verbose,
                    )
                )
        yield engine


def _check_question(asked: bool, draw: Path | None, *, videos: bool, on_ray: bool) -> None:
    """Raise if what is given needs a question and there is none, or a dataset."""
    if on_ray:
        raise VlmRunError(
            "--replicas and --ray answer datasets", hint="Give one with --val_dataset, or leave them out."
        )
    if draw is not None and not asked:
        raise VlmRunError("--draw needs a question or a task")
    if videos and not asked:
        raise VlmRunError("--video needs a question or a task")


def _check_dataset_alone(draw: Path | None, log: Path | None, *, asked: bool) -> None:
    """Raise if what is given beside a dataset is for a single question."""
    if draw is not None:
        raise VlmRunError(
            "both --draw and --val_dataset are given", hint="The rows of the result file have `boxes`."
        )
    if log is not None:
        raise VlmRunError("both --log and --val_dataset are given", hint="Use --result-path for a dataset.")
    if asked:
        raise VlmRunError(
            "both a question and --val_dataset are given",
            hint="Set the question of rows that have none with --prompt.",
        )


def _check_supported(adapter: Adapter, task: str | None, videos: bool) -> None:
    """Refuse an unknown task, or videos for a model that takes none, before the engine starts."""
    from vlm_run.prompts.support import task_text

    if task is not None:
        task_text(adapter.spec, task)
    if videos:
        adapter.video_facts()


def _read_schema(file: Path) -> dict[str, Any]:
    try:
        schema = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise VlmRunError(f"--json-schema {file} cannot be read: {error}") from None
    if not isinstance(schema, dict):
        raise VlmRunError(f"--json-schema {file} is not a JSON object")
    return schema


def answer_once(
    engine: Engine, request: dict[str, Any], sampling: Sampling, log: AnswerLog, as_json: bool
) -> Response:
    """Answer one request: print the answer as it is generated, or the whole response as JSON.

    Returns:
        The response.

    Raises:
        RequestError: The request cannot be served, and `as_json` is false.
        typer.Exit: Code 2 if the request cannot be served, and `as_json` is true.
    """
    from vlm_run.response import Response

    if as_json:
        (response,) = engine.infer([request], sampling)
        log.write(request, response)
        typer.echo(json.dumps(response.to_dict(), ensure_ascii=False))
        if response.error is not None:
            raise typer.Exit(2)
        return response
    response = Response()
    try:
        for delta in engine.stream(request, sampling):
            typer.echo(delta.text, nl=False)
            if delta.response is not None:
                response = delta.response
                log.write(request, response)
    except RequestError as error:
        log.write(request, Response(finish_reason="error", error=error))
        raise
    typer.echo()
    for other in response.responses[1:]:
        typer.echo(f"{RULE}\n{other}")
    return response
