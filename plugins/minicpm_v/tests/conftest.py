"""A checkpoint directory with the published processor settings, without weights."""

from __future__ import annotations

import json
from pathlib import Path

from vlm_run import ModelSpec
from vlm_run.testing.checkpoint_fixtures import checkpoint_fixtures
from vlm_run.testing.tokenizer import write_byte_tokenizer

NAMED = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "image_start_token": "<image>",
    "image_end_token": "</image>",
    "slice_start_token": "<slice>",
    "slice_end_token": "</slice>",
    "image_id_start_token": "<image_id>",
    "image_id_end_token": "</image_id>",
}


def _write(directory: Path, spec: ModelSpec) -> None:
    ids = write_byte_tokenizer(
        directory,
        spec.control_tokens,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=NAMED,
    )
    config = {
        "architectures": [spec.architecture],
        "model_type": "minicpmv4_6",
        "torch_dtype": "float32",
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "text_config": {
            "model_type": "qwen3_5_text",
            "vocab_size": 256 + len(ids),
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "num_key_value_heads": 1,
            "head_dim": 32,
            "max_position_embeddings": 32768,
        },
        "vision_config": {
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "patch_size": 14,
        },
    }
    processor = {"processor_class": "MiniCPMV4_6Processor"}
    files = {
        "config.json": config,
        "preprocessor_config.json": {**processor, "image_processor_type": "MiniCPMV4_6ImageProcessor"},
        "video_preprocessor_config.json": {**processor, "video_processor_type": "MiniCPMV4_6VideoProcessor"},
    }
    for name, content in files.items():
        (directory / name).write_text(json.dumps(content))


checkpoint, vlm_run_checkpoints = checkpoint_fixtures(_write, "vlm-run-minicpm-v")
