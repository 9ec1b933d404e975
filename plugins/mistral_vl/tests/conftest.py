"""Checkpoint directories in Mistral's format with the published image settings, without weights."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from vlm_run import ModelSpec
from vlm_run.testing.checkpoint_fixtures import checkpoint_fixtures
from vlm_run_mistral_vl.vision import Rows

PATTERN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# Special tokens of tekken_240911.json up to that of tool results; their ids are their places.
SPECIAL = [
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]"),
    *("[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]"),
]


def _write(directory: Path, spec: ModelSpec) -> None:
    assert isinstance(spec.vision, Rows)
    image = spec.vision.model_dump(include={"image_patch_size", "max_image_size", "spatial_merge_size"})
    vocabulary = 256 + len(SPECIAL)
    tekken = {
        "config": {
            "pattern": PATTERN,
            "num_vocab_tokens": 256,
            "default_vocab_size": vocabulary,
            "default_num_special_tokens": len(SPECIAL),
            "version": "v3" if spec.chat_template.endswith("v3.jinja") else "v7",
        },
        "vocab": [
            {"rank": rank, "token_bytes": base64.b64encode(bytes([rank])).decode(), "token_str": None}
            for rank in range(256)
        ],
        "special_tokens": [
            {"rank": rank, "token_str": token, "is_control": True} for rank, token in enumerate(SPECIAL)
        ],
        "image": image,
    }
    params = {
        "dim": 32,
        "n_layers": 1,
        "head_dim": 16,
        "hidden_dim": 32,
        "n_heads": 2,
        "n_kv_heads": 1,
        "norm_eps": 1e-5,
        "rope_theta": 1e6,
        "vocab_size": vocabulary,
        "max_position_embeddings": spec.context_length,
        "vision_encoder": {
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "num_channels": 3,
            "patch_size": image["image_patch_size"],
            "image_size": image["max_image_size"],
            "max_image_size": image["max_image_size"],
            "spatial_merge_size": image["spatial_merge_size"],
            "rope_theta": 10000.0,
            "image_token_id": SPECIAL.index("[IMG]"),
            "image_break_token_id": SPECIAL.index("[IMG_BREAK]"),
            "image_end_token_id": SPECIAL.index("[IMG_END]"),
        },
    }
    (directory / "tekken.json").write_text(json.dumps(tekken))
    (directory / "params.json").write_text(json.dumps(params))


# One for each version of the tokenizer.
checkpoint, vlm_run_checkpoints = checkpoint_fixtures(
    _write, ["pixtral-12b-2409", "mistral-small-3_1-24b-instruct-2503"]
)
