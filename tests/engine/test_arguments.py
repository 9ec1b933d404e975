"""Engine options: checked against vLLM's own, and the configuration that comes of them."""

from __future__ import annotations

import pytest

from vlm_run import Limits, Registry
from vlm_run.engine.arguments import engine_args
from vlm_run.errors import EngineError


def test_an_unknown_option_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(EngineError, match=r"'max_model_length'\. Did you mean 'max_model_len'"):
        engine_args(Registry.load("demo-llava"), {"max_model_length": 512})


def test_options_of_the_caller_go_before_those_of_the_plugin() -> None:
    adapter = Registry.load("demo-llava")
    assert engine_args(adapter, {}).max_model_len == 2048
    assert engine_args(adapter, {"max_model_len": 512}).max_model_len == 512


def test_remote_code_is_off_unless_asked_for() -> None:
    adapter = Registry.load("demo-llava")
    assert engine_args(adapter, {}).trust_remote_code is False
    assert engine_args(adapter, {"trust_remote_code": True}).trust_remote_code is True


def test_the_configuration_is_vllms_own() -> None:
    config = Registry.load("demo-llava", limits=Limits(max_model_len=1024, max_images=1)).vllm_config()
    assert config.model_config.architecture == "LlavaNextForConditionalGeneration"
    assert config.model_config.max_model_len == 1024
    assert config.model_config.multimodal_config.get_limit_per_prompt("image") == 1


def test_a_refused_configuration_says_why() -> None:
    with pytest.raises(EngineError, match="max_model_len"):
        Registry.load("demo-llava").vllm_config(max_model_len=1_000_000)


SERVED = [name for name in Registry.model_types() if Registry.load(name).spec.replaced_by is None]


@pytest.mark.parametrize("model_type", SERVED)
def test_every_model_types_options_are_known_to_vllm(model_type: str) -> None:
    adapter = Registry.load(model_type)
    arguments = engine_args(adapter, {})
    assert arguments.model == adapter.source
    assert arguments.trust_remote_code is False
