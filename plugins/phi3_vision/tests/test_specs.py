"""What the spec says of the checkpoint and of engine options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vlm_run import Limits, Registry
from vlm_run.errors import UnknownModelError

MODEL_TYPE = "phi3-vision-128k-instruct"
# From config.json on the hub; the first of the RoPE factors, of which there are 48.
COMMON: dict[str, Any] = {
    "architectures": ["Phi3VForCausalLM"],
    "auto_map": {"AutoConfig": "configuration_phi3_v.Phi3VConfig"},
    "max_position_embeddings": 131072,
    "model_type": "phi3_v",
    "vocab_size": 32064,
}
PUBLISHED: dict[str, dict[str, Any]] = {
    MODEL_TYPE: {
        **COMMON,
        "_name_or_path": "Phi-3-vision-128k-instruct",
        "rope_scaling": {"long_factor": [1.0299999713897705, 1.0499999523162842], "type": "su"},
    },
    "phi3_5-vision-instruct": {
        **COMMON,
        "_name_or_path": "Phi-3.5-vision-instruct",
        "rope_scaling": {"long_factor": [1.0800000429153442, 1.1100000143051147], "type": "su"},
    },
}


@pytest.mark.parametrize("name", ["as published", "my-finetune"])
@pytest.mark.parametrize("model_type", PUBLISHED)
def test_the_published_config_tells_its_model_type(model_type: str, name: str, tmp_path: Path) -> None:
    config = PUBLISHED[model_type]
    if name != "as published":
        config = {**config, "_name_or_path": name}
    (tmp_path / "config.json").write_text(json.dumps(config))
    adapter = Registry.load(tmp_path)
    assert adapter.spec.model_type == model_type
    assert adapter.source == str(tmp_path)


def test_a_config_that_could_be_either_models_is_refused_with_both_names(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(COMMON))
    with pytest.raises(UnknownModelError, match="phi3-vision-128k-instruct, phi3_5-vision-instruct"):
        Registry.load(tmp_path)


@pytest.mark.parametrize(
    ("model_type", "name"),
    [(MODEL_TYPE, "Phi-3-vision-128k-instruct"), ("phi3_5-vision-instruct", "Phi-3.5-vision-instruct")],
)
def test_weights_come_from_the_hub_or_from_modelscope(model_type: str, name: str) -> None:
    spec = Registry.load(model_type).spec
    assert spec.source == spec.hf_id == f"microsoft/{name}"
    assert spec.modelscope_id == f"LLM-Research/{name}"


@pytest.mark.parametrize("model_type", PUBLISHED)
def test_no_code_of_the_checkpoint_is_run(model_type: str) -> None:
    assert Registry.load(model_type).engine_kwargs()["trust_remote_code"] is False


@pytest.mark.parametrize("model_type", PUBLISHED)
def test_as_many_of_the_largest_images_as_are_allowed_fit_the_default_context(model_type: str) -> None:
    adapter = Registry.load(model_type)
    kwargs = adapter.engine_kwargs()
    most = kwargs["limit_mm_per_prompt"]["image"] * adapter.count_image_tokens(50, 8000)
    assert most < kwargs["max_model_len"] < adapter.spec.context_length == 131072


def test_a_user_may_ask_for_more_context_and_fewer_images() -> None:
    limits = Limits(max_images=1, max_model_len=131072)
    kwargs = Registry.load(MODEL_TYPE, limits=limits).engine_kwargs()
    assert (kwargs["max_model_len"], kwargs["limit_mm_per_prompt"]) == (131072, {"image": 1})


def test_an_answer_ends_with_its_turn() -> None:
    assert Registry.load(MODEL_TYPE).spec.stop == ("<|end|>", "<|endoftext|>")


def test_the_template_leaves_bos_to_the_tokenizer() -> None:
    assert "bos_token" not in Path(Registry.load(MODEL_TYPE).spec.chat_template).read_text()
