"""What the specs say of checkpoints and engine options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vlm_run import Registry
from vlm_run.plugins.discovery import installed_plugins
from vlm_run.plugins.matching import model_type_of

CLIP_336 = {"model_type": "clip_vision_model", "hidden_size": 1024, "image_size": 336, "patch_size": 14}
PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
LLAMA_7B = {"model_type": "llama", "vocab_size": 32064, "max_position_embeddings": 4096}
LLAMA_13B = {**LLAMA_7B, "hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40}
MISTRAL = {"model_type": "mistral", "vocab_size": 32064, "max_position_embeddings": 32768}


def _llava_1_5(text: dict[str, Any]) -> dict[str, Any]:
    return {
        "architectures": ["LlavaForConditionalGeneration"],
        "text_config": text,
        "vision_config": CLIP_336,
    }


def _llava_1_6(text: dict[str, Any]) -> dict[str, Any]:
    return {
        "architectures": ["LlavaNextForConditionalGeneration"],
        "image_grid_pinpoints": PINPOINTS,
        "text_config": text,
        "vision_config": CLIP_336,
    }


# config.json on the hub leaves out what is the default of its class, such as Llama's hidden_size.
CONFIGS = {
    "llava1_5-7b-instruct": _llava_1_5(LLAMA_7B),
    "llava1_5-13b-instruct": _llava_1_5(LLAMA_13B),
    "llava1_6-mistral-7b-instruct": _llava_1_6(MISTRAL),
    "llava1_6-vicuna-7b-instruct": _llava_1_6(LLAMA_7B),
    "llava1_6-vicuna-13b-instruct": _llava_1_6(LLAMA_13B),
}
REPOSITORIES = {
    "llava1_5-7b-instruct": "llava-hf/llava-1.5-7b-hf",
    "llava1_5-13b-instruct": "llava-hf/llava-1.5-13b-hf",
    "llava1_6-mistral-7b-instruct": "llava-hf/llava-v1.6-mistral-7b-hf",
    "llava1_6-vicuna-7b-instruct": "llava-hf/llava-v1.6-vicuna-7b-hf",
    "llava1_6-vicuna-13b-instruct": "llava-hf/llava-v1.6-vicuna-13b-hf",
}
CONTEXTS = {
    "llava1_5-7b-instruct": 4096,
    "llava1_5-13b-instruct": 4096,
    "llava1_6-mistral-7b-instruct": 32768,
    "llava1_6-vicuna-7b-instruct": 4096,
    "llava1_6-vicuna-13b-instruct": 4096,
}


def _load(directory: Path, config: dict[str, Any]) -> str:
    (directory / "config.json").write_text(json.dumps(config))
    return Registry.load(directory).spec.model_type


def _listed(directory: Path, config: dict[str, Any]) -> Any:
    """The listed model type that a configuration is of, without deriving a spec from the checkpoint."""
    (directory / "config.json").write_text(json.dumps(config))
    return model_type_of(directory, installed_plugins())


@pytest.mark.parametrize("model_type", CONFIGS)
def test_a_published_config_tells_its_model_type(model_type: str, tmp_path: Path) -> None:
    assert _load(tmp_path, CONFIGS[model_type]) == model_type


@pytest.mark.parametrize("model_type", ["llava1_5-7b-instruct", "llava1_6-vicuna-7b-instruct"])
def test_a_config_that_has_llamas_hidden_size_tells_its_model_type(model_type: str, tmp_path: Path) -> None:
    config = CONFIGS[model_type]
    text = {**config["text_config"], "hidden_size": 4096}
    assert _load(tmp_path, {**config, "text_config": text}) == model_type


@pytest.mark.parametrize(
    "differs",
    [
        {"text_config": {**LLAMA_7B, "vocab_size": 128320}},
        {"vision_config": {**CLIP_336, "image_size": 224}},
        {"vision_config": {**CLIP_336, "model_type": "siglip_vision_model", "image_size": 384}},
        {"text_config": {**LLAMA_7B, "model_type": "qwen2"}},
    ],
    ids=["another tokenizer", "smaller images", "another vision tower", "another language model"],
)
def test_another_model_of_the_same_architecture_is_none_of_these(
    differs: dict[str, Any], tmp_path: Path
) -> None:
    assert _listed(tmp_path, {**CONFIGS["llava1_5-7b-instruct"], **differs}) is None


def test_a_model_with_other_canvases_is_none_of_these(tmp_path: Path) -> None:
    config = {**CONFIGS["llava1_6-mistral-7b-instruct"], "image_grid_pinpoints": [[336, 672]]}
    assert _listed(tmp_path, config) is None


@pytest.mark.parametrize("model_type", CONFIGS)
def test_weights_come_from_the_hub_or_from_modelscope(model_type: str) -> None:
    spec = Registry.load(model_type).spec
    assert spec.hf_id == REPOSITORIES[model_type]
    assert spec.modelscope_id == f"swift/{REPOSITORIES[model_type].removeprefix('llava-hf/')}"
    assert spec.source == spec.hf_id


@pytest.mark.parametrize("model_type", CONFIGS)
def test_the_engine_starts_with_the_models_whole_context(model_type: str) -> None:
    adapter = Registry.load(model_type)
    assert adapter.engine_kwargs()["max_model_len"] == CONTEXTS[model_type] == adapter.spec.context_length
    assert adapter.count_image_tokens(5000, 5000) < CONTEXTS[model_type]


@pytest.mark.parametrize("model_type", CONFIGS)
def test_answers_end_at_the_end_of_sequence(model_type: str) -> None:
    assert Registry.load(model_type).spec.stop == ("</s>",)


@pytest.mark.parametrize("model_type", CONFIGS)
def test_the_template_leaves_bos_to_the_tokenizer(model_type: str) -> None:
    spec = Registry.load(model_type).spec
    assert spec.bos_token == ""
    assert "bos_token" not in Path(spec.chat_template).read_text()
