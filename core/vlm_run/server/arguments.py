"""vLLM's server arguments: the plugin's options, overridden by the command's and by vLLM's own flags."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from vlm_run.engine import vllm_seams
from vlm_run.engine.versions import check_serves
from vlm_run.engine.vllm_internals import locate
from vlm_run.errors import EngineError, did_you_mean
from vlm_run.media import MediaPolicy

if TYPE_CHECKING:
    from vlm_run.adapter import Adapter

# The only host from which vLLM itself may fetch images: one that cannot exist.
_NOWHERE = "fetched-by-vlm-run.invalid"
_UNSUPPORTED = {
    "shutdown_timeout": "Give --shutdown-timeout before the `--`.",
    "chat_template": "Give --chat-template before the `--`.",
    "headless": "Start `vllm serve --headless` on the other nodes; see docs/serving.md.",
    "grpc": "vlm-run serves HTTP.",
}


def server_arguments(adapter: Adapter, options: Mapping[str, Any], flags: Sequence[str]) -> Namespace:
    """vLLM's server arguments for an adapter.

    Args:
        adapter: The model.
        options: Options under vLLM's names; they override the plugin's.
        flags: Flags as on vLLM's own command line; they override everything else.

    Raises:
        EngineError: vLLM is missing or out of range, or does not accept an option or a flag.
    """
    check_serves(adapter.spec)
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    def refuse(message: str) -> NoReturn:
        raise EngineError(
            f"vLLM's server refuses its flags: {message}",
            hint="`vllm serve --help=all` lists them; they follow after `--`.",
        )

    parser = FlexibleArgumentParser(prog="vllm serve", add_help=False)
    parser.error = refuse
    parser = locate(vllm_seams.MAKE_ARG_PARSER)(parser)
    defaults = {
        "host": "127.0.0.1",
        "served_model_name": [adapter.spec.model_type],
        **_template_variables(adapter),
        **adapter.engine_kwargs(served=True, **options),
    }
    _check_names(defaults, {action.dest for action in parser._actions})
    parser.set_defaults(**defaults)
    try:
        args: Namespace = parser.parse_args(list(flags))
        locate(vllm_seams.VALIDATE_PARSED_SERVE_ARGS)(args)
        import_parsers(args)
        locate(vllm_seams.VALIDATE_API_SERVER_ARGS)(args)
    except (TypeError, ValueError, KeyError, OSError) as error:
        refuse(str(error.args[0] if error.args else error))
    if args.model_tag is not None:
        refuse(f"unrecognized argument: {args.model_tag}")
    for name, advice in _UNSUPPORTED.items():
        if getattr(args, name, None):
            raise EngineError(f"--{name.replace('_', '-')} is not a flag for vLLM here", hint=advice)
    if args.tokenizer_mode not in ("auto", "hf", "mistral"):
        raise EngineError(f"--tokenizer-mode {args.tokenizer_mode} cannot be used with the adapter's prompts")
    return args


def take_media_policy(args: Namespace, limits: Mapping[str, Any]) -> MediaPolicy:
    """The media policy for the images of requests; afterwards vLLM itself may fetch none.

    Args:
        args: vLLM's server arguments. `allowed_media_domains` and `allowed_local_media_path` move from
            there to the policy.
        limits: Further fields of `MediaPolicy`.

    Raises:
        EngineError: The local path is not a directory.
    """
    directory = args.allowed_local_media_path
    if directory and not os.path.isdir(directory):
        raise EngineError(f"--allowed-local-media-path {directory} is not a directory")
    policy = MediaPolicy.for_server().model_copy(
        update={
            "allow_local_files": bool(directory),
            "allowed_local_path": Path(directory) if directory else None,
            "allowed_domains": tuple(args.allowed_media_domains) if args.allowed_media_domains else None,
        }
    )
    args.allowed_local_media_path = ""
    args.allowed_media_domains = [_NOWHERE]
    return MediaPolicy.model_validate({**policy.model_dump(), **limits})


def import_parsers(args: Namespace) -> None:
    """Register the tool and reasoning parsers in the files that vLLM's flags name, in this process."""
    from vllm.reasoning import ReasoningParserManager
    from vllm.tool_parsers import ToolParserManager

    if args.tool_parser_plugin:
        ToolParserManager.import_tool_parser(args.tool_parser_plugin)
    if args.reasoning_parser_plugin:
        ReasoningParserManager.import_reasoning_parser(args.reasoning_parser_plugin)


def api_keys(args: Namespace) -> list[str]:
    """The API keys that clients may send, including vLLM's environment variable `VLLM_API_KEY`."""
    from vllm import envs

    return [key for key in (args.api_key or [envs.VLLM_API_KEY]) if key]


def _template_variables(adapter: Adapter) -> dict[str, Any]:
    """The option that tells vLLM's parsers of reasoning the spec's variables, such as `enable_thinking`.

    Strings are left out: those of a derived spec are the names of its tokens.
    """
    variables = {
        name: value for name, value in adapter.spec.template_kwargs.items() if not isinstance(value, str)
    }
    return {"default_chat_template_kwargs": variables} if variables else {}


def _check_names(options: Mapping[str, Any], known: set[str]) -> None:
    for name in options:
        if name not in known:
            raise EngineError(
                f"vLLM's server has no option '{name}'",
                hint=did_you_mean(name, known) or "`vllm serve --help=all` lists them.",
            )
