"""`vlm-run serve` (alias `deploy`): an OpenAI-compatible server."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vlm_run.cli.completion import complete_model_type
from vlm_run.cli.options import MODEL, HubOption, LoadOptions, expand_option_groups
from vlm_run.cli.replicas import RAY
from vlm_run.cli.server_options import EngineFlags, ReplicaOptions, RequestMediaOptions, ServerOptions
from vlm_run.errors import VlmRunError
from vlm_run.extras import check_library


@expand_option_groups
def serve(
    load: LoadOptions,
    server: ServerOptions,
    scaling: ReplicaOptions,
    flags: EngineFlags,
    media: RequestMediaOptions,
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
    verbose: Annotated[bool, typer.Option(help="Show full tracebacks.")] = False,
) -> None:
    """Serve a model over OpenAI's API. Requests may also have ms-swift's fields and tags for images.

        vlm-run serve llava1_6-mistral-7b-instruct --port 8000

    Any flag of `vllm serve` can follow after `--`.
    """
    typed, vllm_flags = _split(words or [])
    adapter = load.load(load.name_alone(typed), hub)
    from vlm_run.engine.lora import lora_engine_options, lora_server_flags, read_lora_adapters
    from vlm_run.engine.versions import check_serves
    from vlm_run.media.policy import MIB
    from vlm_run.server.tcp_socket import bind_tcp

    if not scaling.on_ray and not vllm_flags:  # which may name another address
        bind_tcp(server.host, server.port).close()
    check_serves(adapter.spec)  # which imports vLLM, as the server's modules do
    adapters, engine = read_lora_adapters(lora or []), load.engine_options()
    options = {"served_model_name": served_model_name}
    options |= server.vllm_options() | flags.vllm_options() | media.vllm_options()
    given: dict[str, Any] = {
        "options": {
            **engine,
            **lora_engine_options(adapters, {**adapter.base_engine_kwargs, **engine}),
            **{option: value for option, value in options.items() if value not in (None, [])},
        },
        "flags": [*lora_server_flags(adapters), *vllm_flags],
        "media": media.policy_fields(),
        "renderers": flags.renderers,
        "shutdown_seconds": server.shutdown_timeout,
        "max_body_bytes": server.max_request_mib * MIB,
    }
    if not scaling.on_ray:
        from vlm_run.server.serve import serve as run

        raise typer.Exit(run(adapter, page=server.ui, open_browser=server.open_browser, **given))
    if server.ui:
        raise VlmRunError("the chat page is not served with --replicas", hint="Leave out --ui.")
    check_library(*RAY)
    from vlm_run.ray.serve import serve as run_on_ray

    code = run_on_ray(
        adapter,
        replicas=scaling.replicas or 1,
        min_replicas=scaling.min_replicas,
        max_replicas=scaling.max_replicas,
        address=scaling.ray,
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
