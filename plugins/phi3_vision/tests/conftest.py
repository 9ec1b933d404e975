"""A checkpoint folder that vLLM can read: a tokenizer and the hub's sizes of crops, no weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlm_run import Registry

TOKENS = Registry.load("phi3-vision-128k-instruct").spec.control_tokens


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder."""
    folder = tmp_path_factory.mktemp("phi3-vision")
    vocabulary = _write_tokenizer(folder)
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
        "vocab_size": vocabulary,
        "max_position_embeddings": 16384,
        "original_max_position_embeddings": 16384,
        "bos_token_id": 256,
        "eos_token_id": 259,
        "pad_token_id": 259,
        # config.json of microsoft/Phi-3-vision-128k-instruct.
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
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps({"num_crops": 16}))
    return folder


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


def _write_tokenizer(folder: Path) -> int:
    """A tokenizer with a token for each byte and one for each special token; it begins with BOS."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in TOKENS])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    facts = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(facts))
    return tokenizer.get_vocab_size()
