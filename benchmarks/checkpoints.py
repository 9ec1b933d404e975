"""Checkpoint directories with real dimensions and no weights: python benchmarks/checkpoints.py DIRECTORY

For `--load-format dummy`, with which vLLM initializes a model with random weights. The dimensions are
those of config.json on the hub. The tokenizer has one token per byte, so the ids of the control tokens
differ from the hub's. Prints the model types with their directories.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vlm_run import Registry
from vlm_run.testing.tokenizer import write_byte_tokenizer

_CLIP_LARGE_336 = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
}
_PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]


def qwen2_vl_2b(ids: dict[str, int]) -> dict[str, Any]:
    """Qwen/Qwen2-VL-2B-Instruct."""
    return {
        "config": {
            "architectures": ["Qwen2VLForConditionalGeneration"],
            "model_type": "qwen2_vl",
            "torch_dtype": "bfloat16",
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "image_token_id": ids["<|image_pad|>"],
            "video_token_id": ids["<|video_pad|>"],
            "vision_start_token_id": ids["<|vision_start|>"],
            "vision_end_token_id": ids["<|vision_end|>"],
            "hidden_size": 1536,
            "intermediate_size": 8960,
            "num_hidden_layers": 28,
            "num_attention_heads": 12,
            "num_key_value_heads": 2,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1000000.0,
            "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
            "tie_word_embeddings": True,
            "vocab_size": 151936,
            "vision_config": {
                "depth": 32,
                "embed_dim": 1280,
                "hidden_size": 1536,
                "mlp_ratio": 4,
                "num_heads": 16,
                "patch_size": 14,
                "spatial_merge_size": 2,
                "temporal_patch_size": 2,
            },
        },
        "preprocessor_config": {
            "image_processor_type": "Qwen2VLImageProcessor",
            "processor_class": "Qwen2VLProcessor",
            "min_pixels": 3136,
            "max_pixels": 12845056,
            "patch_size": 14,
            "temporal_patch_size": 2,
            "merge_size": 2,
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
        },
    }


def llava_1_6_mistral_7b(ids: dict[str, int]) -> dict[str, Any]:
    """llava-hf/llava-v1.6-mistral-7b-hf."""
    return {
        "config": {
            "architectures": ["LlavaNextForConditionalGeneration"],
            "model_type": "llava_next",
            "torch_dtype": "bfloat16",
            "image_token_index": ids["<image>"],
            "image_grid_pinpoints": _PINPOINTS,
            "vision_feature_layer": -2,
            "vision_feature_select_strategy": "default",
            "text_config": {
                "model_type": "mistral",
                "hidden_size": 4096,
                "intermediate_size": 14336,
                "num_hidden_layers": 32,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "max_position_embeddings": 32768,
                "rms_norm_eps": 1e-5,
                "rope_theta": 1000000.0,
                "sliding_window": None,
                "vocab_size": 32064,
            },
            "vision_config": _CLIP_LARGE_336,
        },
        "preprocessor_config": {
            "image_processor_type": "LlavaNextImageProcessor",
            "size": {"shortest_edge": 336},
            "crop_size": {"height": 336, "width": 336},
            "image_grid_pinpoints": _PINPOINTS,
        },
        "processor_config": {
            "processor_class": "LlavaNextProcessor",
            "patch_size": 14,
            "vision_feature_select_strategy": "default",
            "num_additional_image_tokens": 1,
        },
    }


def phi3_vision(ids: dict[str, int]) -> dict[str, Any]:
    """microsoft/Phi-3-vision-128k-instruct, without its long-context rope factors."""
    return {
        "config": {
            "_name_or_path": "microsoft/Phi-3-vision-128k-instruct",
            "architectures": ["Phi3VForCausalLM"],
            "model_type": "phi3_v",
            "torch_dtype": "bfloat16",
            "hidden_size": 3072,
            "intermediate_size": 8192,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "vocab_size": 32064,
            "max_position_embeddings": 16384,
            "original_max_position_embeddings": 16384,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "bos_token_id": ids["<s>"],
            "eos_token_id": ids["<|endoftext|>"],
            "pad_token_id": ids["<|endoftext|>"],
            "img_processor": {
                "image_dim_out": 1024,
                "layer_idx": -2,
                "model_name": "openai/clip-vit-large-patch14-336",
                "name": "clip_vision_model",
                "num_img_tokens": 144,
            },
            "embd_layer": {
                "embedding_cls": "image",
                "hd_transform_order": "sub_glb",
                "projection_cls": "mlp",
                "use_hd_transform": True,
                "with_learnable_separator": True,
            },
        },
        "preprocessor_config": {"num_crops": 16},
    }


# The function that returns the files, and special tokens of the tokenizer's configuration.
MODELS: dict[str, tuple[Callable[[dict[str, int]], dict[str, Any]], dict[str, str]]] = {
    "qwen2-vl-2b-instruct": (qwen2_vl_2b, {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}),
    "llava1_6-mistral-7b-instruct": (
        llava_1_6_mistral_7b,
        {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"},
    ),
    "phi3-vision-128k-instruct": (
        phi3_vision,
        {"bos_token": "<s>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
    ),
}


# Dimensions of a model that starts quickly on any machine; attention kernels support its head size.
_TINY = {
    "hidden_size": 256,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "depth": 2,
    "embed_dim": 128,
    "num_heads": 2,
    "mrope_section": [8, 12, 12],
    # vLLM fixes the size of Phi-3-vision's vision tower, but computes only up to this of its 24 layers.
    "layer_idx": -23,
}


def _shrunk(config: Any) -> Any:
    """The configuration with the dimensions of a tiny model."""
    if not isinstance(config, dict):
        return config
    return {name: _TINY.get(name, _shrunk(value)) for name, value in config.items()}


def write(model_type: str, directory: Path, *, tiny: bool = False) -> Path:
    """Write a model type's checkpoint below `directory` and return its path.

    Args:
        model_type: One of `MODELS`.
        directory: The parent; the checkpoint is written to a subdirectory named after the model type.
        tiny: Whether to use small dimensions, to try a benchmark without a GPU.
    """
    files, tokens = MODELS[model_type]
    target = directory / model_type
    target.mkdir(parents=True, exist_ok=True)
    ids = write_byte_tokenizer(target, Registry.load(model_type).spec.control_tokens, **tokens)
    written = files(ids)
    if tiny:
        written["config"] = _shrunk(written["config"])
    for name, content in written.items():
        (target / f"{name}.json").write_text(json.dumps(content, indent=2))
    return target


if __name__ == "__main__":
    for model_type in MODELS:
        print(model_type, write(model_type, Path(sys.argv[1])))
