"""The files of demo-qwen's checkpoint that `prepare.py` writes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from pixels import DEVIATION, MEAN
from qwen import MERGE, PATCH, VISION
from tokenizers import Tokenizer

from vlm_run_demo.boxes import TAGS

NAME = "vlm-run/demo-qwen"
CONTROL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
"""Special tokens, from id 0 on: those of Qwen2-VL that its prompts use."""
UNUSED_BYTES = "üýþÿ"
"""Tokens of the bytes 252 to 255, which UTF-8 never has, as byte-level BPE writes them."""
POSITIONS = 4096
FRAMES = 2
"""Frames of a film that one patch spans; a still image is two equal ones."""


def plain(text: str) -> Iterator[str]:
    """What the tokenizer learns from of a piece of prompt: what stands between special tokens."""
    yield from filter(None, re.split(r"<\|\w+\|>", text))


def finish(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer with the tags of boxes in place of bytes that never occur.

    So the model could learn boxes without a change to the number of its weights or to the ids of its tokens.
    """
    content = json.loads(tokenizer.to_str())
    vocabulary = content["model"]["vocab"]
    for byte, tag in zip(UNUSED_BYTES, TAGS, strict=True):
        vocabulary[tag] = vocabulary.pop(byte)
        content["added_tokens"].append(content["added_tokens"][0] | {"id": vocabulary[tag], "content": tag})
    return Tokenizer.from_str(json.dumps(content))


def files(tokenizer: Tokenizer) -> dict[str, dict[str, Any]]:
    """Content by file name."""
    return {
        "config.json": model_config(tokenizer),
        "tokenizer_config.json": tokenizer_config(),
        "generation_config.json": generation_config(tokenizer),
        "preprocessor_config.json": image_processor_config(),
    }


def model_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """`config.json`: a Qwen2-VL of about six million weights, whose language model is demo-llava's."""
    ids = tokenizer.get_vocab()
    return {
        "_name_or_path": NAME,
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "model_type": "qwen2_vl",
        "torch_dtype": "bfloat16",
        "tie_word_embeddings": False,
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "text_config": {
            "model_type": "qwen2_vl_text",
            "vocab_size": tokenizer.get_vocab_size(),
            "hidden_size": 256,
            "intermediate_size": 512,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": POSITIONS,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            # Frequencies for time, rows and columns, the highest first. Qwen2-VL's shares, 1 : 1.5 : 1.5,
            # would leave columns those that hardly turn over the ten or so that an image has here.
            "rope_scaling": {"rope_type": "default", "mrope_section": [4, 6, 22]},
            "tie_word_embeddings": False,
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        "vision_config": {
            "depth": 4,
            "embed_dim": 192,
            "hidden_size": 256,
            "num_heads": 6,
            "mlp_ratio": 2,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": FRAMES,
            "in_channels": 3,
        },
    }


def tokenizer_config() -> dict[str, Any]:
    """`tokenizer_config.json`."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "processor_class": "Qwen2VLProcessor",
        "model_max_length": POSITIONS,
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "additional_special_tokens": [*CONTROL, *TAGS],
    }


def generation_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """`generation_config.json`: greedy, until either token that ends an answer of Qwen2-VL's."""
    ids = tokenizer.get_vocab()
    return {
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]],
        "pad_token_id": ids["<|endoftext|>"],
        "do_sample": False,
    }


def image_processor_config() -> dict[str, Any]:
    """`preprocessor_config.json`, with CLIP's mean and deviation as Qwen2-VL's."""
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2VLProcessor",
        "min_pixels": VISION.min_pixels,
        "max_pixels": VISION.max_pixels,
        "patch_size": PATCH,
        "temporal_patch_size": FRAMES,
        "merge_size": MERGE,
        "image_mean": list(MEAN),
        "image_std": list(DEVIATION),
    }
