"""What the specs say of checkpoints and engine options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vlm_run import Limits, Registry, VlmRunError

# From config.json on the hub (or of copies: the AWQ and GPTQ versions of the 72B ones): those
# configurations have the language model's sizes at the top, those of Qwen3-VL nest them.
CONFIGS: dict[str, dict[str, Any]] = {
    "qwen2-vl-2b-instruct": {"architectures": ["Qwen2VLForConditionalGeneration"], "hidden_size": 1536},
    "qwen2-vl-7b-instruct": {"architectures": ["Qwen2VLForConditionalGeneration"], "hidden_size": 3584},
    "qwen2-vl-72b-instruct": {"architectures": ["Qwen2VLForConditionalGeneration"], "hidden_size": 8192},
    "qwen2_5-vl-3b-instruct": {"architectures": ["Qwen2_5_VLForConditionalGeneration"], "hidden_size": 2048},
    "qwen2_5-vl-7b-instruct": {"architectures": ["Qwen2_5_VLForConditionalGeneration"], "hidden_size": 3584},
    "qwen2_5-vl-72b-instruct": {"architectures": ["Qwen2_5_VLForConditionalGeneration"], "hidden_size": 8192},
    "qwen3-vl-8b-instruct": {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "text_config": {"hidden_size": 4096, "model_type": "qwen3_vl_text"},
        "vision_config": {"hidden_size": 1152},
    },
}


def _directory(path: Path, config: dict[str, Any]) -> Path:
    (path / "config.json").write_text(json.dumps(config))
    return path


@pytest.mark.parametrize("model_type", CONFIGS)
def test_a_published_config_tells_its_model_type(model_type: str, tmp_path: Path) -> None:
    adapter = Registry.load(_directory(tmp_path, CONFIGS[model_type]))
    assert adapter.spec.model_type == model_type
    assert adapter.source == str(tmp_path)


@pytest.mark.parametrize("model_type", CONFIGS)
def test_a_config_saved_by_a_newer_transformers_tells_its_model_type(model_type: str, tmp_path: Path) -> None:
    config = CONFIGS[model_type]
    size = config.get("hidden_size") or config["text_config"]["hidden_size"]
    nested = {"architectures": config["architectures"], "text_config": {"hidden_size": size}}
    assert Registry.load(_directory(tmp_path, nested)).spec.model_type == model_type


def test_a_size_that_is_not_served_is_refused(tmp_path: Path) -> None:
    unheard_of = {"architectures": ["Qwen2_5_VLForConditionalGeneration"], "hidden_size": 6144}
    with pytest.raises(VlmRunError, match="no installed plugin serves"):
        Registry.load(_directory(tmp_path, unheard_of))


@pytest.mark.parametrize("model_type", CONFIGS)
def test_the_whole_prompt_of_the_largest_image_fits_the_default_context(model_type: str) -> None:
    adapter = Registry.load(model_type)
    kwargs = adapter.engine_kwargs()
    assert adapter.count_image_tokens(5000, 5000) < kwargs["max_model_len"] <= adapter.spec.context_length


def test_only_the_72b_ones_need_more_than_one_gpu() -> None:
    gpus = {name: Registry.load(name).engine_kwargs().get("tensor_parallel_size", 1) for name in CONFIGS}
    assert {name for name, count in gpus.items() if count > 1} == {
        "qwen2-vl-72b-instruct",
        "qwen2_5-vl-72b-instruct",
    }


def test_a_limit_on_images_leaves_videos_off() -> None:
    kwargs = Registry.load("qwen2-vl-7b-instruct", limits=Limits(max_images=2)).engine_kwargs()
    assert kwargs["limit_mm_per_prompt"] == {"image": 2, "video": 0}
