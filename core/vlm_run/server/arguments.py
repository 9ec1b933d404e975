"""What the server is started with: the plugin's options, the command's, and vLLM's own flags on top."""

from __future__ import annotations

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

# Where vLLM would look for pictures, if it were ever asked to fetch one: nowhere.
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
        options: In vLLM's names, on top of the plugin's.
        flags: As on vLLM's own command line, on top of all.

    Raises:
        EngineError: vLLM is missing or out of range, or does not take an option or a flag.
    """
    check_serves(adapter.spec)
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    def refuse(message: str) -> NoReturn:
        raise EngineError(
            f"vLLM's server refuses its flags: {message}",
            hint="`vllm serve --help=all` lists them; they stand behind `--`.",
        )

    parser = FlexibleArgumentParser(prog="vllm serve", add_help=False)
    parser.error = refuse
    parser = locate(vllm_seams.MAKE_ARG_PARSER)(parser)
    defaults = {
        "host": "127.0.0.1",
        "served_model_name": [adapter.spec.model_type],
        **adapter.engine_kwargs(**options),
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
    if args.tokenizer_mode not in ("auto", "hf"):
        raise EngineError(f"--tokenizer-mode {args.tokenizer_mode} does not go with the adapter's prompts")
    return args


def take_media_policy(args: Namespace, limits: Mapping[str, Any]) -> MediaPolicy:
    """The policy for pictures of requests, after which vLLM itself may fetch none.

    Args:
        args: vLLM's arguments. Its `allowed_media_domains` and `allowed_local_media_path` become
            the policy's.
        limits: Further fields of `MediaPolicy`.

    Raises:
        EngineError: The local path is no folder.
    """
    folder = args.allowed_local_media_path
    if folder and not Path(folder).is_dir():
        raise EngineError(f"--allowed-local-media-path {folder} is no folder")
    policy = MediaPolicy.for_server().model_copy(
        update={
            "allow_local_files": bool(folder),
            "allowed_local_path": Path(folder) if folder else None,
            "allowed_domains": tuple(args.allowed_media_domains) if args.allowed_media_domains else None,
        }
    )
    args.allowed_local_media_path = ""
    args.allowed_media_domains = [_NOWHERE]
    return MediaPolicy.model_validate({**policy.model_dump(), **limits})


def import_parsers(args: Namespace) -> None:
    """Let vLLM know the parsers of the files that its flags name; needed in each process."""
    from vllm.reasoning import ReasoningParserManager
    from vllm.tool_parsers import ToolParserManager

    if args.tool_parser_plugin:
        ToolParserManager.import_tool_parser(args.tool_parser_plugin)
    if args.reasoning_parser_plugin:
        ReasoningParserManager.import_reasoning_parser(args.reasoning_parser_plugin)


def api_keys(args: Namespace) -> list[str]:
    """The keys in force, vLLM's variable `VLLM_API_KEY` included."""
    from vllm import envs

    return [key for key in (args.api_key or [envs.VLLM_API_KEY]) if key]


def _check_names(options: Mapping[str, Any], known: set[str]) -> None:
    for name in options:
        if name not in known:
            raise EngineError(
                f"vLLM's server has no option '{name}'",
                hint=did_you_mean(name, known) or "`vllm serve --help=all` lists them.",
            )
