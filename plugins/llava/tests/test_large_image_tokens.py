"""Image token counts of LLaVA-NeXT's large checkpoints and of LLaVA-OneVision, beside vLLM's processor.

The checkpoints have real sizes where pictures are concerned, and tiny language models.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vlm_run import ModelSpec, Registry

# One model type for each language model's architecture, since vLLM reads that, too.
LANGUAGE_MODELS = {
    "llava1_6-yi-34b-instruct": "llama",
    "llava-next-110b-hf": "qwen2",
    "llava-onevision-qwen2-7b-ov": "qwen2",
}
EXTREMES = [(1, 1), (1, 200), (200, 1), (4000, 30), (30, 4000), (385, 383), (1153, 944), (944, 1153)]

# preprocessor_config.json and processor_config.json of llava-hf/llava-v1.6-34b-hf and of
# llava-hf/llava-onevision-qwen2-7b-ov-hf, in what decides sizes.
NEXT: dict[str, dict[str, Any]] = {
    "preprocessor_config.json": {
        "image_processor_type": "LlavaNextImageProcessor",
        "processor_class": "LlavaNextProcessor",
        "size": {"shortest_edge": 336},
        "crop_size": {"height": 336, "width": 336},
        "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    },
    "processor_config.json": {
        "processor_class": "LlavaNextProcessor",
        "patch_size": 14,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
    },
}
TILES = [[384 * rows, 384 * columns] for rows in range(1, 7) for columns in range(1, 7)]
ONEVISION: dict[str, dict[str, Any]] = {
    "preprocessor_config.json": {
        "image_processor_type": "LlavaOnevisionImageProcessor",
        "processor_class": "LlavaOnevisionProcessor",
        "size": {"height": 384, "width": 384},
        "image_grid_pinpoints": TILES,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    },
    "video_preprocessor_config.json": {
        "video_processor_type": "LlavaOnevisionVideoProcessor",
        "size": {"height": 384, "width": 384},
    },
    "processor_config.json": {
        "processor_class": "LlavaOnevisionProcessor",
        "num_image_tokens": 729,
        "vision_feature_select_strategy": "full",
        "vision_aspect_ratio": "anyres_max_9",
    },
}


def _write(folder: Path, spec: ModelSpec, language_model: str) -> None:
    onevision = spec.architecture == "LlavaOnevisionForConditionalGeneration"
    ids = _write_tokenizer(folder, spec.control_tokens)
    files = dict(ONEVISION if onevision else NEXT)
    files["config.json"] = {
        "architectures": [spec.architecture],
        "model_type": "llava_onevision" if onevision else "llava_next",
        "torch_dtype": "float32",
        "image_token_index": ids["<image>"],
        "image_grid_pinpoints": files["preprocessor_config.json"]["image_grid_pinpoints"],
        "vision_feature_select_strategy": "full" if onevision else "default",
        **({"video_token_index": ids["<video>"]} if onevision else {}),
        "text_config": {
            "model_type": language_model,
            "architectures": ["Qwen2ForCausalLM" if language_model == "qwen2" else "LlamaForCausalLM"],
            "vocab_size": 512,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "num_key_value_heads": 1,
            "max_position_embeddings": 32768,
        },
        "vision_config": {
            "model_type": "siglip_vision_model" if onevision else "clip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 1,
            "image_size": 384 if onevision else 336,
            "patch_size": 14,
            **({"vision_use_head": False} if onevision else {"projection_dim": 32}),
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))


def _write_tokenizer(folder: Path, special: tuple[str, ...]) -> dict[str, int]:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.save(str(folder / "tokenizer.json"))
    facts = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": special[0], "pad_token": special[0]}
    (folder / "tokenizer_config.json").write_text(json.dumps(facts))
    return {token: tokenizer.token_to_id(token) for token in special}


Counter = Callable[[str, list[tuple[int, int]]], int]


@pytest.fixture(scope="module")
def vllm_count(tmp_path_factory: pytest.TempPathFactory) -> Counter:
    """A function that lets vLLM's processor replace one placeholder a picture, and counts."""
    pytest.importorskip("vllm")
    from vllm.config import ModelConfig
    from vllm.multimodal import MULTIMODAL_REGISTRY
    from vllm.multimodal.processing import ProcessorInputs, TimingContext

    processors: dict[str, tuple[Any, int]] = {}

    def count(model_type: str, sizes: list[tuple[int, int]]) -> int:
        if model_type not in processors:
            folder = tmp_path_factory.mktemp(model_type)
            _write(folder, Registry.load(model_type).spec, LANGUAGE_MODELS[model_type])
            config = ModelConfig(model=str(folder), dtype="float32")
            processor = MULTIMODAL_REGISTRY.create_processor(config)
            processors[model_type] = processor, config.hf_config.image_token_index
        processor, placeholder = processors[model_type]
        items = processor.info.parse_mm_data({"image": [Image.new("RGB", size) for size in sizes]})
        done = processor.apply(
            ProcessorInputs([placeholder] * len(sizes), items), TimingContext(enabled=False)
        )
        return len(done["prompt_token_ids"])

    return count


@pytest.mark.parametrize("model_type", LANGUAGE_MODELS)
def test_count_is_that_of_vllms_processor(model_type: str, vllm_count: Counter) -> None:
    adapter = Registry.load(model_type)

    # Sizes up to those of a canvas of nine tiles, and beyond, where OneVision scales down.
    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(width=st.integers(20, 3500), height=st.integers(20, 3500))
    def agrees(width: int, height: int) -> None:
        assert adapter.count_image_tokens(width, height) == vllm_count(model_type, [(width, height)])

    for size in EXTREMES:
        assert adapter.count_image_tokens(*size) == vllm_count(model_type, [size]), size
    agrees()


@pytest.mark.parametrize("model_type", LANGUAGE_MODELS)
def test_several_pictures_cost_what_they_cost_alone(model_type: str, vllm_count: Counter) -> None:
    adapter = Registry.load(model_type)
    sizes = [(640, 480), (100, 900), (1153, 944)]
    assert vllm_count(model_type, sizes) == sum(adapter.count_image_tokens(*size) for size in sizes)
