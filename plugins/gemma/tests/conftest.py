"""Checkpoint directories with the published processor settings, without weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vlm_run import ModelSpec
from vlm_run.testing.checkpoint_fixtures import checkpoint_fixtures
from vlm_run.testing.tokenizer import write_byte_tokenizer

TOKENS = {
    "image_token": "<image_soft_token>",
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
}
# `extra_special_tokens` of Gemma 4's tokenizer, as far as its processor uses them.
TOKENS_4 = {
    "image_token": "<|image|>",
    "boi_token": "<|image>",
    "eoi_token": "<image|>",
    "audio_token": "<|audio|>",
    "boa_token": "<|audio>",
    "eoa_token": "<audio|>",
}


def _write(directory: Path, spec: ModelSpec) -> None:
    if spec.architecture != "Gemma3ForConditionalGeneration":
        _write_gemma_4(directory, spec)
        return
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


def _write_gemma_4(directory: Path, spec: ModelSpec) -> None:
    from transformers import AutoConfig, AutoTokenizer

    ids = write_byte_tokenizer(
        directory,
        spec.control_tokens,
        bos_token="<bos>",  # the chat template writes it: `add_bos_token` is false
        eos_token="<eos>",
        pad_token="<pad>",
        extra_special_tokens=TOKENS_4,
    )
    unified = spec.architecture == "Gemma4UnifiedForConditionalGeneration"
    budget = "num_soft_tokens" if unified else "default_output_length"
    config = AutoConfig.for_model(
        "gemma4_unified" if unified else "gemma4", audio_config=None, vision_config={budget: 280}
    ).to_dict()
    config |= {"architectures": [spec.architecture]}
    config |= {f"{name}_id": ids[token] for name, token in TOKENS_4.items()}
    config["text_config"]["vocab_size"] = 256 + len(ids)
    (directory / "config.json").write_text(json.dumps(config))
    _gemma_4_processor(unified, AutoTokenizer.from_pretrained(directory)).save_pretrained(directory)


def _gemma_4_processor(unified: bool, tokenizer: Any) -> Any:
    """The processor as transformers' conversion script creates it."""
    import transformers

    name = "Gemma4Unified" if unified else "Gemma4"
    images = {"do_normalize": False, "max_soft_tokens": 280, "pooling_kernel_size": 3}
    return getattr(transformers, f"{name}Processor")(
        image_processor=getattr(transformers, f"{name}ImageProcessor")(**images),
        video_processor=getattr(transformers, f"{name}VideoProcessor")(),
        feature_extractor=getattr(transformers, f"{name}AudioFeatureExtractor")(),
        tokenizer=tokenizer,
        image_seq_length=280,
    )


# One for each processor and each chat template.
checkpoint, vlm_run_checkpoints = checkpoint_fixtures(
    _write, ("gemma-3-4b-it", "gemma-4-e4b-it", "gemma-4-12b-it")
)
