"""Checkpoint directories with the published processor settings, without weights."""

from __future__ import annotations

import json
from pathlib import Path

from vlm_run import ModelSpec
from vlm_run.testing.checkpoint_fixtures import checkpoint_fixtures
from vlm_run.testing.tokenizer import write_byte_tokenizer

NAMED = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
SMALL = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1}
SQUARE = {"height": 448, "width": 448}
NORMALIZED = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def _write(directory: Path, spec: ModelSpec) -> None:
    ids = write_byte_tokenizer(
        directory,
        [*spec.control_tokens, "<video>"],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=NAMED,
    )
    config = {
        "architectures": [spec.architecture],
        "model_type": "internvl",
        "torch_dtype": "float32",
        "image_token_id": ids["<IMG_CONTEXT>"],
        "image_seq_length": 256,
        "vision_config": {"model_type": "internvl_vision", "image_size": [448, 448], **SMALL},
        "text_config": {
            "model_type": spec.config_match["text_config.model_type"],
            "vocab_size": 256 + len(ids),
            "max_position_embeddings": spec.context_length,
            "num_key_value_heads": 1,
            "head_dim": 32,
            **SMALL,
        },
    }
    processor = {"processor_class": "InternVLProcessor"}
    files = {
        "config.json": config,
        "processor_config.json": {**processor, "image_seq_length": 256},
        "preprocessor_config.json": {
            **processor,
            "image_processor_type": "GotOcr2ImageProcessorFast",
            "size": SQUARE,
            **NORMALIZED,
        },
        "video_preprocessor_config.json": {
            **processor,
            "video_processor_type": "InternVLVideoProcessor",
            "size": SQUARE,
            **NORMALIZED,
        },
    }
    for name, content in files.items():
        (directory / name).write_text(json.dumps(content))


# One for each kind of language model: all else is the same.
checkpoint, vlm_run_checkpoints = checkpoint_fixtures(
    _write, ("internvl3-1b-hf", "internvl3_5-1b-hf", "internvl3_5-30b-a3b-hf")
)
