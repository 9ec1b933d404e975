"""A checkpoint directory that vLLM can read: a tokenizer and the hub's sizes of crops, no weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlm_run import Registry
from vlm_run.testing.tokenizer import write_byte_tokenizer

# config.json of microsoft/Phi-3-vision-128k-instruct: its vision tower, and code to be downloaded and run.
VISION: dict[str, Any] = {
    "auto_map": {
        "AutoConfig": "configuration_phi3_v.Phi3VConfig",
        "AutoModelForCausalLM": "modeling_phi3_v.Phi3VForCausalLM",
    },
    "img_processor": {
        "image_dim_out": 1024,
        "model_name": "openai/clip-vit-large-patch14-336",
        "name": "clip_vision_model",
        "num_img_tokens": 144,
    },
    "embd_layer": {
        "embedding_cls": "image",
        "hd_transform_order": "sub_glb",
        "projection_cls": "mlp",
        "use_hd_transform": True,
        "with_learnable_separator": True,
    },
}
# preprocessor_config.json, less what has no part in it.
PREPROCESSOR: dict[str, Any] = {
    "auto_map": {
        "AutoImageProcessor": "image_processing_phi3_v.Phi3VImageProcessor",
        "AutoProcessor": "processing_phi3_v.Phi3VProcessor",
    },
    "num_crops": 16,
}
TOKENS = Registry.load("phi3-vision-128k-instruct").spec.control_tokens


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory."""
    directory = tmp_path_factory.mktemp("phi3-vision")
    ids = write_byte_tokenizer(directory, TOKENS, "<s>", eos_token="<|endoftext|>", pad_token="<|endoftext|>")
    config = {
        "_name_or_path": "microsoft/Phi-3-vision-128k-instruct",
        "architectures": ["Phi3VForCausalLM"],
        "model_type": "phi3_v",
        "torch_dtype": "float32",
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "vocab_size": 256 + len(ids),
        "max_position_embeddings": 16384,
        "original_max_position_embeddings": 16384,
        "bos_token_id": ids["<s>"],
        "eos_token_id": ids["<|endoftext|>"],
        "pad_token_id": ids["<|endoftext|>"],
        **VISION,
    }
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    return directory


@pytest.fixture(scope="session")
def vlm_run_checkpoints(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """For the conformance suite."""
    phi3_5 = tmp_path_factory.mktemp("phi3.5-vision")
    shutil.copytree(checkpoint, phi3_5, dirs_exist_ok=True)
    (phi3_5 / "preprocessor_config.json").write_text(json.dumps({**PREPROCESSOR, "num_crops": 4}))
    return {"phi3-vision-128k-instruct": checkpoint, "phi3_5-vision-instruct": phi3_5}


@pytest.fixture(scope="session")
def vllm_processor(checkpoint: Path) -> Callable[[int], Any]:
    """A function that makes vLLM's processor for a number of crops."""
    pytest.importorskip("vllm")
    from vllm.config import ModelConfig
    from vllm.multimodal import MULTIMODAL_REGISTRY
    from vllm.plugins import load_general_plugins

    load_general_plugins()  # as every vLLM process does
    made: dict[int, Any] = {}

    def make(num_crops: int) -> Any:
        if num_crops not in made:
            options = {"num_crops": num_crops}
            config = ModelConfig(model=str(checkpoint), dtype="float32", mm_processor_kwargs=options)
            made[num_crops] = MULTIMODAL_REGISTRY.create_processor(config)
        return made[num_crops]

    return make
