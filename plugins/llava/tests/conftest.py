"""Checkpoint folders that vLLM can read: CLIP at 336 pixels and the hub's canvases, no weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlm_run import ModelSpec, Registry

# config.json of llava-hf/llava-v1.6-mistral-7b-hf and of the Vicuna ones.
PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function that makes the checkpoint folder, without weights, of a model type."""
    made: dict[str, Path] = {}

    def make(model_type: str) -> Path:
        spec = Registry.load(model_type).spec
        if spec.architecture not in made:
            made[spec.architecture] = tmp_path_factory.mktemp(spec.architecture)
            _write(made[spec.architecture], spec)
        return made[spec.architecture]

    return make


def _write(folder: Path, spec: ModelSpec) -> None:
    is_next = spec.architecture == "LlavaNextForConditionalGeneration"
    ids = _write_tokenizer(folder, spec.control_tokens)
    config = {
        "architectures": [spec.architecture],
        "model_type": "llava_next" if is_next else "llava",
        "torch_dtype": "float32",
        "image_token_index": ids["<image>"],
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "text_config": {
            "model_type": "llama",
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "vocab_size": 256 + len(ids),
            "max_position_embeddings": 32768,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 1,
            "image_size": 336,
            "patch_size": 14,
        },
        **({"image_grid_pinpoints": PINPOINTS} if is_next else {}),
    }
    preprocessor: dict[str, Any] = {
        "image_processor_type": "LlavaNextImageProcessor" if is_next else "CLIPImageProcessor",
        "size": {"shortest_edge": 336},
        "crop_size": {"height": 336, "width": 336},
        **({"image_grid_pinpoints": PINPOINTS} if is_next else {}),
    }
    processor = {
        "processor_class": "LlavaNextProcessor" if is_next else "LlavaProcessor",
        "patch_size": 14,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
    }
    for name, content in {
        "config": config,
        "preprocessor_config": preprocessor,
        "processor_config": processor,
    }.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


def _write_tokenizer(folder: Path, special: tuple[str, ...]) -> dict[str, int]:
    """A tokenizer with a token for each byte and one for each special token, whose ids it returns."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.save(str(folder / "tokenizer.json"))
    facts = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(facts))
    return {token: tokenizer.token_to_id(token) for token in special}
