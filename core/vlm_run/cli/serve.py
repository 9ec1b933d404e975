"""`vlm-run serve` (alias `deploy`): an OpenAI-compatible server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vlm_run.cli.completion import complete_model_type
from vlm_run.cli.options import ENGINE, MODEL, HubOption, LoadOptions, expand_option_groups
from vlm_run.cli.replicas import MaxReplicas, MinReplicas, RayAddress, Replicas
from vlm_run.errors import VlmRunError
from vlm_run.extras import check_library

_SERVER = "Server"
_IMAGES = "Images in requests"

MIB = 1024 * 1024


@expand_option_groups
def serve(
    load: LoadOptions,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL [-- VLLM FLAGS]",
            help="Model type, and flags of `vllm serve`.",
            autocompletion=complete_model_type,
        ),
    ] = None,
    served_model_name: Annotated[
        list[str] | None,
        typer.Option(
            help="Model name in the API; repeatable. Defaults to the model type.", rich_help_panel=MODEL
        ),
    ] = None,
    hub: HubOption = "huggingface",
    lora: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PATH",
            help="LoRA adapter, which requests choose as their model; repeatable.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(help="Address to listen on; 0.0.0.0 for all interfaces.", rich_help_panel=_SERVER),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 picks a free port.", rich_help_panel=_SERVER)] = 8000,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            help="Key that clients must send; repeatable. Also read from VLLM_API_KEY.",
            rich_help_panel=_SERVER,
        ),
    ] = None,
    shutdown_timeout: Annotated[
        float,
        typer.Option(help="Seconds that running requests may take after SIGTERM.", rich_help_panel=_SERVER),
    ] = 30.0,
    ui: Annotated[
        bool, typer.Option("--ui", help="Serve a chat page at / as well.", rich_help_panel=_SERVER)
    ] = False,
    open_browser: Annotated[
        bool, typer.Option("--open-browser", hidden=True, help="Open the chat page once it is served.")
    ] = False,
    max_request_mib: Annotated[
        int, typer.Option(help="Maximum size of a request body in MiB.", rich_help_panel=_SERVER)
    ] = 256,
    replicas: Replicas = None,
    min_replicas: MinReplicas = None,
    max_replicas: MaxReplicas = None,
    ray: RayAddress = None,
    max_num_seqs: Annotated[
        int | None,
        typer.Option(help="Maximum number of requests processed concurrently.", rich_help_panel=ENGINE),
    ] = None,
    gpu_memory_utilization: Annotated[
        float | None, typer.Option(help="Fraction of GPU memory to use.", rich_help_panel=ENGINE)
    ] = None,
    data_parallel_size: Annotated[
        int | None,
        typer.Option(help="Number of replicas of the model, each on its own GPUs.", rich_help_panel=ENGINE),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Data type of the weights.", rich_help_panel=ENGINE)
    ] = None,
    renderers: Annotated[
        int | None,
        typer.Option(
            help="Processes that preprocess images; 0 for none. Defaults to a number that suits the cores.",
            rich_help_panel=ENGINE,
        ),
    ] = None,
    allowed_media_domains: Annotated[
        list[str] | None,
        typer.Option(help="Fetch images only from this host; repeatable.", rich_help_panel=_IMAGES),
    ] = None,
    allow_private_media: Annotated[
        bool, typer.Option(help="Fetch images from private addresses too.", rich_help_panel=_IMAGES)
    ] = False,
    allowed_local_media_path: Annotated[
        Path | None,
        typer.Option(help="Let requests name files below this directory.", rich_help_panel=_IMAGES),
    ] = None,
    allow_documents: Annotated[
        bool,
        typer.Option(
            "--allow-documents",
            help="Accept PDFs, pages of TIFFs (#page=2) and HEIC images.",
            rich_help_panel=_IMAGES,
        ),
    ] = False,
    media_timeout: Annotated[
        float, typer.Option(help="Timeout for fetching one image, in seconds.", rich_help_panel=_IMAGES)
    ] = 20.0,
    max_image_mib: Annotated[
        int, typer.Option(help="Maximum size of an encoded image in MiB.", rich_help_panel=_IMAGES)
    ] = 50,
    max_image_pixels: Annotated[
        int, typer.Option(help="Maximum area of an image in pixels.", rich_help_panel=_IMAGES)
    ] = 100_000_000,
    verbose: Annotated[bool, typer.Option(help="Show full tracebacks.")] = False,
) -> None:
    """Serve a model over OpenAI's API. Requests may also have ms-swift's fields and tags for images.

        vlm-run serve llava1_6-mistral-7b-instruct --port 8000

    Any flag of `vllm serve` can follow after `--`.
    """
    typed, flags = _split(words or [])
    name = load.name_alone(typed)
    from vlm_run.engine.lora import lora_engine_options, lora_server_flags, read_lora_adapters
    from vlm_run.engine.versions import check_serves
    from vlm_run.server.tcp_socket import bind_tcp

    options = {
        "host": host,
        "port": port,
        "api_key": api_key,
        "served_model_name": served_model_name,
        "max_num_seqs": max_num_seqs,
        "gpu_memory_utilization": gpu_memory_utilization,
        "data_parallel_size": data_parallel_size,
        "dtype": dtype,
        "allowed_media_domains": allowed_media_domains,
        "allowed_local_media_path": str(allowed_local_media_path) if allowed_local_media_path else None,
    }
    media: dict[str, Any] = {
        "allow_private_addresses": allow_private_media,
        "allow_documents": allow_documents,
        "timeout_s": media_timeout,
        "max_bytes": max_image_mib * MIB,
        "max_pixels": max_image_pixels,
    }
    adapter = load.load(name, hub)
    on_ray = any(given is not None for given in (replicas, max_replicas, ray))
    if not on_ray and not flags:  # which may name another address
        bind_tcp(host, port).close()
    check_serves(adapter.spec)  # which imports vLLM, as the server's modules do
    adapters = read_lora_adapters(lora or [])
    given: dict[str, Any] = {
        "options": {
            **load.engine_options(),
            **lora_engine_options(adapters, {**adapter.base_engine_kwargs, **load.engine_options()}),
            **{option: value for option, value in options.items() if value not in (None, [])},
        },
        "flags": [*lora_server_flags(adapters), *flags],
        "media": media,
        "renderers": renderers,
        "shutdown_seconds": shutdown_timeout,
        "max_body_bytes": max_request_mib * MIB,
    }
    if not on_ray:
        from vlm_run.server.serve import serve as run

        raise typer.Exit(run(adapter, page=ui, open_browser=open_browser, **given))
    if ui:
        raise VlmRunError("the chat page is not served with --replicas", hint="Leave out --ui.")
    check_library("ray", "ray", "several engines")
    from vlm_run.ray.serve import serve as run_on_ray

    code = run_on_ray(
        adapter,
        replicas=replicas or 1,
        min_replicas=min_replicas,
        max_replicas=max_replicas,
        address=ray,
        verbose=verbose,
        **given,
    )
    raise typer.Exit(code)


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """Split the words at the first flag, from which on they are for vLLM."""
    for index, word in enumerate(words):
        if word.startswith("-"):
            return words[:index], words[index:]
    return words, []
