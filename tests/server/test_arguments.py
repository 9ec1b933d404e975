"""The plugin's options, the command's and vLLM's own flags come together as vLLM takes them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vlm_run import Limits, Registry
from vlm_run.engine.lora import lora_engine_options, lora_server_flags
from vlm_run.errors import EngineError, VlmRunError
from vlm_run.server.arguments import server_arguments, take_media_policy


def arguments(*flags: str, limits: Limits | None = None, **options: Any) -> Any:
    return server_arguments(Registry.load("demo-llava", limits=limits), options, flags)


def test_the_plugins_options_are_the_defaults() -> None:
    args = arguments()
    assert args.max_num_seqs == 32
    assert args.limit_mm_per_prompt == {"image": 2}
    assert args.served_model_name == ["demo-llava"]
    assert (args.host, args.port) == ("127.0.0.1", 8000)
    assert args.trust_remote_code is False


def test_options_go_before_the_plugin_and_flags_before_both() -> None:
    args = arguments("--max-num-seqs", "3", limits=Limits(max_model_len=999), max_num_seqs=5, port=9)
    assert (args.max_num_seqs, args.max_model_len, args.port) == (3, 999, 9)
    assert arguments("--max_model_len=512", "--no-enforce-eager").enforce_eager is False
    assert arguments("--api-key", "a", "b").api_key == ["a", "b"]


def test_parsers_of_reasoning_know_the_templates_variables() -> None:
    adapter = Registry.load("demo-llava")
    assert not server_arguments(adapter, {}, []).default_chat_template_kwargs
    variables = {"enable_thinking": False, "image_token": "<image>"}
    adapter = replace(adapter, spec=adapter.spec.model_copy(update={"template_kwargs": variables}))
    assert server_arguments(adapter, {}, []).default_chat_template_kwargs == {"enable_thinking": False}


def test_lora_adapters_reach_vllm_by_name_with_the_rank_they_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlm_run.engine.lora.vllm_is_for_cpu", lambda: False)
    directory = tmp_path / "a, b"
    directory.mkdir()
    (directory / "adapter_config.json").write_text('{"r": 20}')
    adapters = {"ocr": str(directory)}
    args = arguments(*lora_server_flags(adapters), **lora_engine_options(adapters))
    assert [(module.name, module.path) for module in args.lora_modules] == [("ocr", str(directory))]
    assert (args.enable_lora, args.max_lora_rank, args.max_loras) == (True, 32, 1)


def test_flags_of_vllm_may_come_from_its_configuration_file(tmp_path: Path) -> None:
    file = tmp_path / "flags.yaml"
    file.write_text("max-num-seqs: 7\n")
    assert arguments("--config", str(file)).max_num_seqs == 7


def test_parsers_of_a_file_are_known(tmp_path: Path) -> None:
    file = tmp_path / "parsers.py"
    file.write_text(
        "from vllm.tool_parsers import ToolParser, ToolParserManager\n"
        "@ToolParserManager.register_module('from_a_file')\n"
        "class Parser(ToolParser): pass\n"
    )
    flags = ("--enable-auto-tool-choice", "--tool-call-parser", "from_a_file")
    assert arguments(*flags, "--tool-parser-plugin", str(file)).tool_call_parser == "from_a_file"


@pytest.mark.parametrize(
    ("flags", "options", "message"),
    [
        (["--max-num-seq", "x"], {}, "invalid int value"),
        (["--nonesuch"], {}, "unrecognized arguments: --nonesuch"),
        (["surplus"], {}, "unrecognized argument: surplus"),
        ([], {"max_num_seq": 5}, "no option 'max_num_seq'. Did you mean 'max_num_seqs'?"),
        (["--enable-auto-tool-choice"], {}, "requires --tool-call-parser"),
        (["--chat-template", "{{ messages }}"], {}, "Give --chat-template before the `--`"),
        (["--headless"], {}, "--headless is not a flag for vLLM here"),
        (["--shutdown-timeout", "9"], {}, "Give --shutdown-timeout before the `--`"),
        (["--tokenizer-mode", "deepseek_v32"], {}, "--tokenizer-mode deepseek_v32 cannot be used with"),
    ],
)
def test_what_vllm_does_not_take_is_an_error(flags: list[str], options: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError) as caught:
        arguments(*flags, **options)
    assert message in str(caught.value)


def test_the_media_flags_become_the_policy_and_vllm_itself_may_fetch_nothing(tmp_path: Path) -> None:
    args = arguments(
        "--allowed-media-domains", "a.example", "b.example", "--allowed-local-media-path", str(tmp_path)
    )
    policy = take_media_policy(args, {"timeout_s": 3})
    assert policy.allowed_domains == ("a.example", "b.example")
    assert (policy.allow_local_files, policy.allowed_local_path) == (True, tmp_path)
    assert policy.timeout_s == 3
    assert not policy.allow_private_addresses
    assert args.allowed_local_media_path == ""
    assert [domain.rpartition(".")[2] for domain in args.allowed_media_domains] == ["invalid"]


def test_without_flags_no_file_may_be_named_and_every_public_host_may() -> None:
    policy = take_media_policy(arguments(), {})
    assert not policy.allow_local_files
    assert policy.allowed_domains is None


def test_a_local_path_that_is_not_a_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="is not a directory"):
        take_media_policy(arguments(allowed_local_media_path=str(tmp_path / "none")), {})


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"min_replicas": 2}, "--min-replicas needs --max-replicas"),
        ({"min_replicas": 3, "max_replicas": 2}, "--min-replicas 3 is more than --max-replicas 2"),
        ({"options": {"api_server_count": 2}}, "--api-server-count cannot be used with several replicas"),
        ({"flags": ["--uds", "socket"]}, "--uds cannot be used with several replicas"),
    ],
)
def test_options_that_do_not_go_with_replicas_are_refused(asked: dict[str, Any], message: str) -> None:
    """Here and not in `tests/ray`, since vLLM's server takes longer to import than Ray Serve."""
    from vlm_run.ray import deployment

    with pytest.raises(VlmRunError, match=message):
        deployment("demo-llava", **asked)
