"""`vlm-run serve` (alias `deploy`): an OpenAI-compatible server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vlm_run.cli import options as opt
from vlm_run.errors import VlmRunError

_SERVER = "Server"
_IMAGES = "Images of requests"

MIB = 1024 * 1024


def serve(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL [-- VLLM FLAGS]", help="Model type, and flags of `vllm serve`."),
    ] = None,
    model_type: opt.ModelType = None,
    model: Annotated[
        str | None, typer.Option(help="Directory or hub id of the weights.", rich_help_panel=opt.MODEL)
    ] = None,
    served_model_name: Annotated[
        list[str] | None,
        typer.Option(
            help="Name in the API; repeatable. By default the model type.", rich_help_panel=opt.MODEL
        ),
    ] = None,
    chat_template: opt.ChatTemplate = None,
    infer_backend: opt.InferBackend = "vllm",
    trust_remote_code: opt.TrustRemoteCode = False,
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 is all.", rich_help_panel=_SERVER)
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 is any free one.", rich_help_panel=_SERVER)] = 8000,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            help="Key that clients must send; repeatable. Also from VLLM_API_KEY.", rich_help_panel=_SERVER
        ),
    ] = None,
    shutdown_timeout: Annotated[
        float,
        typer.Option(help="Seconds that running requests may take after SIGTERM.", rich_help_panel=_SERVER),
    ] = 30.0,
    max_request_mib: Annotated[
        int, typer.Option(help="Largest request body in MiB.", rich_help_panel=_SERVER)
    ] = 256,
    config: opt.Config = None,
    max_model_len: opt.MaxModelLen = None,
    max_images: opt.MaxImages = None,
    min_pixels: opt.MinPixels = None,
    max_pixels: opt.MaxPixels = None,
    max_num_seqs: Annotated[
        int | None, typer.Option(help="Requests answered at once.", rich_help_panel=opt.ENGINE)
    ] = None,
    gpu_memory_utilization: Annotated[
        float | None, typer.Option(help="Share of the GPU's memory to use.", rich_help_panel=opt.ENGINE)
    ] = None,
    tensor_parallel_size: opt.TensorParallelSize = None,
    data_parallel_size: Annotated[
        int | None,
        typer.Option(help="Copies of the model, each on GPUs of its own.", rich_help_panel=opt.ENGINE),
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="Of the weights.", rich_help_panel=opt.ENGINE)] = None,
    renderers: Annotated[
        int | None,
        typer.Option(
            help="Processes that prepare images; by default by the machine's cores, 0 is none.",
            rich_help_panel=opt.ENGINE,
        ),
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="Any option of vLLM's server; repeatable.", rich_help_panel=opt.ENGINE
        ),
    ] = None,
    allowed_media_domains: Annotated[
        list[str] | None,
        typer.Option(help="Fetch from this host, and only from such; repeatable.", rich_help_panel=_IMAGES),
    ] = None,
    allow_private_media: Annotated[
        bool, typer.Option(help="Fetch from private addresses too.", rich_help_panel=_IMAGES)
    ] = False,
    allowed_local_media_path: Annotated[
        Path | None,
        typer.Option(help="Let requests name files below this directory.", rich_help_panel=_IMAGES),
    ] = None,
    media_timeout: Annotated[
        float, typer.Option(help="Seconds to fetch one image in.", rich_help_panel=_IMAGES)
    ] = 20.0,
    max_image_mib: Annotated[
        int, typer.Option(help="Largest encoded image in MiB.", rich_help_panel=_IMAGES)
    ] = 50,
    max_image_pixels: Annotated[
        int, typer.Option(help="Largest image, width times height.", rich_help_panel=_IMAGES)
    ] = 100_000_000,
    verbose: Annotated[bool, typer.Option(help="Show tracebacks.")] = False,
) -> None:
    """Serve a model over OpenAI's API, with ms-swift's shorthands for images.

        vlm-run serve llava1_6-mistral-7b-instruct --port 8000

    All flags of `vllm serve` may follow behind `--`.
    """
    opt.check_backend(infer_backend)
    typed, flags = _split(words or [])
    name, surplus = opt.name_and_question(typed, model_type or None, model)
    if surplus is not None:
        raise VlmRunError(f"unexpected '{surplus}'", hint="Flags of vLLM stand behind `--`.")
    from vlm_run.engine.versions import check_serves

    options = {
        "host": host,
        "port": port,
        "api_key": api_key,
        "served_model_name": served_model_name,
        "max_num_seqs": max_num_seqs,
        "gpu_memory_utilization": gpu_memory_utilization,
        "tensor_parallel_size": tensor_parallel_size,
        "data_parallel_size": data_parallel_size,
        "dtype": dtype,
        "allowed_media_domains": allowed_media_domains,
        "allowed_local_media_path": str(allowed_local_media_path) if allowed_local_media_path else None,
        "trust_remote_code": trust_remote_code or None,
    }
    media: dict[str, Any] = {
        "allow_private_addresses": allow_private_media,
        "timeout_s": media_timeout,
        "max_bytes": max_image_mib * MIB,
        "max_pixels": max_image_pixels,
    }
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
    check_serves(adapter.spec)  # before the server's modules, which need vLLM
    from vlm_run.server.serve import serve as run

    code = run(
        adapter,
        options={
            **opt.engine_options(engine or []),
            **{option: value for option, value in options.items() if value not in (None, [])},
        },
        flags=flags,
        media=media,
        renderers=renderers,
        shutdown_seconds=shutdown_timeout,
        max_body_bytes=max_request_mib * MIB,
    )
    raise typer.Exit(code)


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """What was typed for vlm-run, and the flags for vLLM from the first that is one."""
    for index, word in enumerate(words):
        if word.startswith("-"):
            return words[:index], words[index:]
    return words, []
