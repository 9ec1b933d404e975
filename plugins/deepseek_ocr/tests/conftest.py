"""A checkpoint directory with the entries of the published configuration, without weights."""

from __future__ import annotations

import json
from pathlib import Path

from vlm_run import ModelSpec
from vlm_run.testing.checkpoint_fixtures import checkpoint_fixtures
from vlm_run.testing.tokenizer import write_byte_tokenizer


def _write(directory: Path, spec: ModelSpec) -> None:
    ids = write_byte_tokenizer(
        directory,
        [*spec.control_tokens, "<td>", "</td>"],
        spec.bos_token,
        eos_token="<｜end▁of▁sentence｜>",
        pad_token="<｜▁pad▁｜>",
    )
    config = {
        "architectures": [spec.architecture],
        "model_type": "deepseek_vl_v2",
        "torch_dtype": "float32",
        "language_config": {
            "architectures": ["DeepseekV2ForCausalLM"],
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "num_key_value_heads": 1,
            "vocab_size": 256 + len(ids),
            "max_position_embeddings": spec.context_length,
            "use_mla": False,
        },
        "projector_config": {"model_type": "mlp_projector", "projector_type": "linear", "n_embed": 32},
        "vision_config": {"model_type": "vision"},
    }
    (directory / "config.json").write_text(json.dumps(config))


checkpoint, vlm_run_checkpoints = checkpoint_fixtures(_write, "vlm-run-deepseek-ocr")
