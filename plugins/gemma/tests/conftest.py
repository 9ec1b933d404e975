"""Checkpoint directories with the published processor settings, without weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from vlm_run import ModelSpec
from vlm_run.testing.checkpoint_fixtures import checkpoint_maker, model_types_of
from vlm_run.testing.tokenizer import write_byte_tokenizer

TOKENS = {
    "image_token": "<image_soft_token>",
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
}


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function that writes the checkpoint of a model type."""
    return checkpoint_maker(tmp_path_factory, _write)


@pytest.fixture(scope="session")
def vlm_run_checkpoints(checkpoint: Callable[[str], Path]) -> dict[str, Path]:
    """For the conformance suite."""
    return {model_type: checkpoint(model_type) for model_type in model_types_of("vlm-run-gemma")}


def _write(directory: Path, spec: ModelSpec) -> None:
    from tokenizers import Tokenizer

    ids = write_byte_tokenizer(
        directory,
        spec.control_tokens,
        "<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        extra_special_tokens=TOKENS,
    )
    # Gemma's vocabulary has tokens for runs of newlines, which vLLM looks up by these names.
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.add_tokens(["\n" * count for count in range(1, 5)])
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {
        "architectures": [spec.architecture],
        "model_type": "gemma3",
        "torch_dtype": "float32",
        "mm_tokens_per_image": 256,
        "image_token_index": ids["<image_soft_token>"],
        "boi_token_index": ids["<start_of_image>"],
        "eoi_token_index": ids["<end_of_image>"],
        "text_config": {
            "model_type": "gemma3_text",
            "hidden_size": 64,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 32,
            "vocab_size": tokenizer.get_vocab_size(),
            "max_position_embeddings": 131072,
        },
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": 64,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 896,
            "patch_size": 14,
        },
    }
    processor = {
        "image_processor_type": "Gemma3ImageProcessor",
        "processor_class": "Gemma3Processor",
        "image_seq_length": 256,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "size": {"height": 896, "width": 896},
    }
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "preprocessor_config.json").write_text(json.dumps(processor))
