"""Checkpoint directories with the published processor settings, without weights."""

from __future__ import annotations

import json
from pathlib import Path

from vlm_run import ModelSpec
from vlm_run.testing.checkpoint_fixtures import checkpoint_fixtures
from vlm_run.testing.tokenizer import write_byte_tokenizer

# `model_type` of config.json and the processor's class, whose image processor has the same prefix.
CLASSES = {
    "Glm4vForConditionalGeneration": ("glm4v", "Glm4v"),
    "Glm4vMoeForConditionalGeneration": ("glm4v_moe", "Glm4v"),
    "GlmOcrForConditionalGeneration": ("glm_ocr", "Glm46V"),
}
_SMALL = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "head_dim": 32,
}
_TOWER = {"depth": 1, "hidden_size": 32, "num_heads": 1, "out_hidden_size": 32, "intermediate_size": 32}


def _write(directory: Path, spec: ModelSpec) -> None:
    ids = write_byte_tokenizer(
        directory,
        [*spec.control_tokens, "</think>"],
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        extra_special_tokens={"image_token": "<|image|>", "video_token": "<|video|>"},
    )
    model_type, prefix = CLASSES[spec.architecture]
    tokens = {
        "image_start": "begin_of_image",
        "image_end": "end_of_image",
        "image": "image",
        "video": "video",
    }
    tokens |= {"video_start": "begin_of_video", "video_end": "end_of_video"}
    config = {
        "architectures": [spec.architecture],
        "model_type": model_type,
        "torch_dtype": "float32",
        **{f"{field}_token_id": ids[f"<|{token}|>"] for field, token in tokens.items()},
        "text_config": {
            "model_type": f"{model_type}_text",
            "vocab_size": 256 + len(ids),
            "max_position_embeddings": spec.context_length,
            **_SMALL,
        },
        "vision_config": {"model_type": f"{model_type}_vision", **_TOWER},
    }
    # preprocessor_config.json of zai-org/GLM-OCR, and that of videos in vLLM's example with GLM-4.1V.
    pixels = {"patch_size": 14, "temporal_patch_size": 2, "merge_size": 2}
    images = {
        "image_processor_type": f"{prefix}ImageProcessor",
        "processor_class": f"{prefix}Processor",
        "size": {"shortest_edge": 12544, "longest_edge": 9633792},
        **pixels,
    }
    videos = {
        "video_processor_type": f"{prefix}VideoProcessor",
        "processor_class": f"{prefix}Processor",
        "size": {"shortest_edge": 12544, "longest_edge": 47040000},
        **pixels,
    }
    files = {
        "config.json": config,
        "preprocessor_config.json": images,
        "video_preprocessor_config.json": videos,
    }
    for name, content in files.items():
        (directory / name).write_text(json.dumps(content))


# One of each architecture: all else is the same.
checkpoint, vlm_run_checkpoints = checkpoint_fixtures(_write, ("glm-4_1v-9b-thinking", "glm-4_5v", "glm-ocr"))
