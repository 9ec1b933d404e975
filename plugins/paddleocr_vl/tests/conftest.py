"""Checkpoint directories with the published processor settings, without weights."""

from __future__ import annotations

import json
from pathlib import Path

from vlm_run import ModelSpec
from vlm_run.testing.checkpoint_fixtures import checkpoint_fixtures
from vlm_run.testing.tokenizer import write_byte_tokenizer

# preprocessor_config.json of PaddlePaddle/PaddleOCR-VL and of PaddlePaddle/PaddleOCR-VL-1.6.
PIXELS = {"paddleocr-vl": (147384, 2822400), "paddleocr-vl-1_6": (112896, 1003520)}

_SMALL = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "head_dim": 16,
}


def _write(directory: Path, spec: ModelSpec) -> None:
    ids = write_byte_tokenizer(
        directory,
        spec.control_tokens,
        eos_token="</s>",
        pad_token="<unk>",
        extra_special_tokens={"image_token": "<|IMAGE_PLACEHOLDER|>"},
    )
    config = {
        "architectures": [spec.architecture],
        "model_type": "paddleocr_vl",
        "torch_dtype": "float32",
        "image_token_id": ids["<|IMAGE_PLACEHOLDER|>"],
        "vision_start_token_id": ids["<|IMAGE_START|>"],
        "vision_end_token_id": ids["<|IMAGE_END|>"],
        "text_config": {
            "model_type": "paddleocr_vl_text",
            "vocab_size": 256 + len(ids),
            "num_key_value_heads": 1,
            "max_position_embeddings": 131072,
            "eos_token_id": ids["</s>"],
            **_SMALL,
        },
        "vision_config": {"model_type": "paddleocr_vl_vision", "image_size": 384, "patch_size": 14, **_SMALL},
    }
    min_pixels, max_pixels = PIXELS[spec.model_type]
    preprocessor = {
        "image_processor_type": "PaddleOCRVLImageProcessor",
        "processor_class": "PaddleOCRVLProcessor",
        "min_pixels": min_pixels,
        "max_pixels": max_pixels,
        "patch_size": 14,
        "merge_size": 2,
        "temporal_patch_size": 1,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "preprocessor_config.json").write_text(json.dumps(preprocessor))


checkpoint, vlm_run_checkpoints = checkpoint_fixtures(_write, "vlm-run-paddleocr-vl")
