"""A checkpoint directory with the entries of the published configuration, without weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from vlm_run import ModelSpec
from vlm_run.testing.checkpoint_fixtures import checkpoint_maker, model_types_of
from vlm_run.testing.tokenizer import write_byte_tokenizer


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function that writes the checkpoint of a model type."""
    return checkpoint_maker(tmp_path_factory, _write)


@pytest.fixture(scope="session")
def vlm_run_checkpoints(checkpoint: Callable[[str], Path]) -> dict[str, Path]:
    """For the conformance suite."""
    return {model_type: checkpoint(model_type) for model_type in model_types_of("vlm-run-deepseek-ocr")}


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
