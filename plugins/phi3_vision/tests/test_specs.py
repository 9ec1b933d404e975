"""What the spec says of the checkpoint and of engine options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vlm_run import Limits, Registry

MODEL_TYPE = "phi3-vision-128k-instruct"
# From config.json on the hub.
CONFIG: dict[str, Any] = {
    "architectures": ["Phi3VForCausalLM"],
    "auto_map": {"AutoConfig": "configuration_phi3_v.Phi3VConfig"},
    "max_position_embeddings": 131072,
    "model_type": "phi3_v",
    "vocab_size": 32064,
}


def test_the_published_config_tells_its_model_type(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    adapter = Registry.load(tmp_path)
    assert adapter.spec.model_type == MODEL_TYPE
    assert adapter.source == str(tmp_path)


def test_weights_come_from_the_hub_or_from_modelscope() -> None:
    spec = Registry.load(MODEL_TYPE).spec
    assert spec.source == spec.hf_id == "microsoft/Phi-3-vision-128k-instruct"
    assert spec.modelscope_id == "LLM-Research/Phi-3-vision-128k-instruct"


def test_no_code_of_the_checkpoint_is_run() -> None:
    assert Registry.load(MODEL_TYPE).engine_kwargs()["trust_remote_code"] is False


def test_as_many_of_the_largest_pictures_as_are_allowed_fit_the_default_context() -> None:
    adapter = Registry.load(MODEL_TYPE)
    kwargs = adapter.engine_kwargs()
    most = kwargs["limit_mm_per_prompt"]["image"] * adapter.count_image_tokens(50, 8000)
    assert most < kwargs["max_model_len"] < adapter.spec.context_length == 131072


def test_a_user_may_ask_for_more_context_and_fewer_pictures() -> None:
    limits = Limits(max_images=1, max_model_len=131072)
    kwargs = Registry.load(MODEL_TYPE, limits=limits).engine_kwargs()
    assert (kwargs["max_model_len"], kwargs["limit_mm_per_prompt"]) == (131072, {"image": 1})


def test_an_answer_ends_with_its_turn() -> None:
    assert Registry.load(MODEL_TYPE).spec.stop == ("<|end|>", "<|endoftext|>")


def test_the_template_leaves_bos_to_the_tokenizer() -> None:
    assert "bos_token" not in Path(Registry.load(MODEL_TYPE).spec.chat_template).read_text()
