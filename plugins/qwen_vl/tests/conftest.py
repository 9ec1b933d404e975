"""Checkpoint directories that vLLM can read: real sizes for the vision tower's input, tiny weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vlm_run import ModelSpec
from vlm_run.testing.checkpoint_fixtures import checkpoint_fixtures
from vlm_run.testing.tokenizer import write_byte_tokenizer

_QWEN3 = {"size": {"shortest_edge": 65536, "longest_edge": 16777216}, "patch_size": 16}

# preprocessor_config.json of Qwen/Qwen2-VL-7B-Instruct and of Qwen/Qwen3-VL-8B-Instruct.
PREPROCESSORS: dict[str, dict[str, Any]] = {
    "Qwen2VLForConditionalGeneration": {"min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14},
    "Qwen2_5_VLForConditionalGeneration": {"min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14},
    "Qwen3VLForConditionalGeneration": _QWEN3,
    "Qwen3VLMoeForConditionalGeneration": _QWEN3,
    # As of Qwen/Qwen3.6-35B-A3B-FP8.
    "Qwen3_5ForConditionalGeneration": _QWEN3,
    "Qwen3_5MoeForConditionalGeneration": _QWEN3,
}

# video_preprocessor_config.json of Qwen/Qwen3-VL-8B-Instruct and of Qwen/Qwen3.6-27B.
VIDEO_PREPROCESSOR = {
    "size": {"longest_edge": 25165824, "shortest_edge": 4096},
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "processor_class": "Qwen3VLProcessor",
    "video_processor_type": "Qwen3VLVideoProcessor",
}

_QWEN3_TOWER = {
    "hidden_size": 32,
    "out_hidden_size": 32,
    "intermediate_size": 32,
    "deepstack_visual_indexes": [0],
}

# `model_type`, the processor, and what the vision towers of the generations name differently.
GENERATIONS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "Qwen2VLForConditionalGeneration": (
        "qwen2_vl",
        "Qwen2VLProcessor",
        {"embed_dim": 32, "hidden_size": 32, "mlp_ratio": 1},
    ),
    "Qwen2_5_VLForConditionalGeneration": (
        "qwen2_5_vl",
        "Qwen2_5_VLProcessor",
        {"hidden_size": 32, "out_hidden_size": 32, "intermediate_size": 32, "fullatt_block_indexes": [0]},
    ),
    "Qwen3VLForConditionalGeneration": ("qwen3_vl", "Qwen3VLProcessor", _QWEN3_TOWER),
    "Qwen3VLMoeForConditionalGeneration": ("qwen3_vl_moe", "Qwen3VLProcessor", _QWEN3_TOWER),
    "Qwen3_5ForConditionalGeneration": ("qwen3_5", "Qwen3VLProcessor", _QWEN3_TOWER),
    "Qwen3_5MoeForConditionalGeneration": ("qwen3_5_moe", "Qwen3VLProcessor", _QWEN3_TOWER),
}


def _write(directory: Path, spec: ModelSpec) -> None:
    model_type, processor, vision = GENERATIONS[spec.architecture]
    # Qwen3's tokenizer has the end of reasoning, which a spec of Thinking leaves to it.
    special = [*spec.control_tokens, *filter(None, [spec.reasoning_end])]
    ids = write_byte_tokenizer(
        directory, special, words=[" seconds"], eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    patch_size = PREPROCESSORS[spec.architecture]["patch_size"]
    text = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "vocab_size": 256 + len(ids),
        "max_position_embeddings": 32768,
        "rope_theta": 1000000.0,
        "rope_scaling": {"rope_type": "default", "mrope_section": [4, 6, 6]},
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
    }
    config = {
        "architectures": [spec.architecture],
        "model_type": model_type,
        "torch_dtype": "float32",
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "text_config": text,
        "vision_config": {
            "depth": 1,
            "num_heads": 2,
            "patch_size": patch_size,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            **vision,
        },
    }
    preprocessor = {
        **PREPROCESSORS[spec.architecture],
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": processor,
        "merge_size": 2,
        "temporal_patch_size": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    if processor == "Qwen3VLProcessor":
        (directory / "video_preprocessor_config.json").write_text(json.dumps(VIDEO_PREPROCESSOR))


checkpoint, vlm_run_checkpoints = checkpoint_fixtures(_write, "vlm-run-qwen-vl")
