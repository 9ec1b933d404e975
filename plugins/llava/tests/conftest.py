"""Checkpoint directories that vLLM can read: the hub's sizes where images are concerned, and no weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vlm_run import ModelSpec
from vlm_run.testing.checkpoint_fixtures import checkpoint_fixtures
from vlm_run.testing.tokenizer import write_byte_tokenizer

# config.json of llava-hf/llava-v1.6-mistral-7b-hf and of the Vicuna ones.
PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
TILES = [[384 * rows, 384 * columns] for rows in range(1, 7) for columns in range(1, 7)]
_NORMALISED = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
_CLIP = {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}, **_NORMALISED}
_CLIP_FEATURES = {
    "patch_size": 14,
    "vision_feature_select_strategy": "default",
    "num_additional_image_tokens": 1,
}
_SIGLIP = {"size": {"height": 384, "width": 384}, **_NORMALISED}

# `model_type`, and preprocessor_config.json and the like in what decides sizes, as in
# llava-hf/llava-1.5-7b-hf, llava-v1.6-34b-hf and llava-onevision-qwen2-7b-ov-hf.
ARCHITECTURES: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
    "LlavaForConditionalGeneration": (
        "llava",
        {
            "preprocessor_config": {"image_processor_type": "CLIPImageProcessor", **_CLIP},
            "processor_config": {"processor_class": "LlavaProcessor", **_CLIP_FEATURES},
        },
    ),
    "LlavaNextForConditionalGeneration": (
        "llava_next",
        {
            "preprocessor_config": {
                "image_processor_type": "LlavaNextImageProcessor",
                "image_grid_pinpoints": PINPOINTS,
                **_CLIP,
            },
            "processor_config": {"processor_class": "LlavaNextProcessor", **_CLIP_FEATURES},
        },
    ),
    "LlavaNextVideoForConditionalGeneration": (
        "llava_next_video",
        {
            "preprocessor_config": {
                "image_processor_type": "LlavaNextImageProcessor",
                "image_grid_pinpoints": PINPOINTS,
                **_CLIP,
            },
            "video_preprocessor_config": {"video_processor_type": "LlavaNextVideoVideoProcessor", **_CLIP},
            "processor_config": {"processor_class": "LlavaNextVideoProcessor", **_CLIP_FEATURES},
        },
    ),
    "LlavaOnevisionForConditionalGeneration": (
        "llava_onevision",
        {
            "preprocessor_config": {
                "image_processor_type": "LlavaOnevisionImageProcessor",
                "image_grid_pinpoints": TILES,
                **_SIGLIP,
            },
            "video_preprocessor_config": {"video_processor_type": "LlavaOnevisionVideoProcessor", **_SIGLIP},
            "processor_config": {
                "processor_class": "LlavaOnevisionProcessor",
                "num_image_tokens": 729,
                "vision_feature_select_strategy": "full",
                "vision_aspect_ratio": "anyres_max_9",
            },
        },
    ),
}
_SMALL = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 1}


def language_model(spec: ModelSpec) -> str:
    """`model_type` of the language model, which vLLM reads too."""
    family: str = spec.config_match.get("text_config.model_type") or (
        "qwen2" if "qwen2" in spec.model_type else "llama"
    )
    return family


def _write(directory: Path, spec: ModelSpec) -> None:
    model_type, files = ARCHITECTURES[spec.architecture]
    onevision, family = model_type == "llava_onevision", language_model(spec)
    # Llama's and Mistral's tokenizers begin with a BOS, Yi's and Qwen's do not.
    bos = next((token for token in ("<s>", "<|begin_of_text|>") if token in spec.control_tokens), None)
    ids = write_byte_tokenizer(
        directory, spec.control_tokens, bos, eos_token=spec.stop[0], pad_token=spec.stop[0]
    )
    config = {
        "architectures": [spec.architecture],
        "model_type": model_type,
        "torch_dtype": "float32",
        "image_token_index": ids["<image>"],
        "vision_feature_layer": -1 if onevision else -2,
        "vision_feature_select_strategy": "full" if onevision else "default",
        **({"video_token_index": ids["<video>"]} if "<video>" in ids else {}),
        **({"spatial_pool_mode": "average", "spatial_pool_stride": 2} if "next_video" in model_type else {}),
        **({"image_grid_pinpoints": TILES if onevision else PINPOINTS} if model_type != "llava" else {}),
        "text_config": {
            "model_type": family,
            "architectures": [
                {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM"}[
                    family
                ]
            ],
            "vocab_size": 256 + len(ids),
            "num_hidden_layers": 1,
            "num_key_value_heads": 1,
            "max_position_embeddings": 32768,
            **_SMALL,
        },
        "vision_config": {
            "model_type": "siglip_vision_model" if onevision else "clip_vision_model",
            "num_hidden_layers": 2,
            "image_size": 384 if onevision else 336,
            "patch_size": 14,
            **({"vision_use_head": False} if onevision else {"projection_dim": 32}),
            **_SMALL,
        },
    }
    for name, content in {"config": config, **files}.items():
        (directory / f"{name}.json").write_text(json.dumps(content))


checkpoint, vlm_run_checkpoints = checkpoint_fixtures(_write, "vlm-run-llava")
