"""The files of demo-llava's checkpoint that `prepare.py` writes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from anyres import PATCH, PINPOINTS, TILE
from tokenizers import Tokenizer, processors

NAME = "vlm-run/demo-llava"
SPECIAL = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
IMAGE_TOKEN = "<image>"
CONTROL = (*SPECIAL.values(), IMAGE_TOKEN)
"""Special tokens, from id 0 on."""
POSITIONS = 4096


def plain(text: str) -> Iterator[str]:
    """What the tokenizer learns from of a piece of prompt: no special token."""
    yield text.replace(IMAGE_TOKEN, "").removesuffix(SPECIAL["eos_token"])


def finish(tokenizer: Tokenizer) -> Tokenizer:
    """Put `<s>` before every text, as the Llama and Mistral tokenizers do."""
    bos = SPECIAL["bos_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    return tokenizer


def files(tokenizer: Tokenizer) -> dict[str, dict[str, Any]]:
    """Content by file name."""
    return {
        "config.json": model_config(tokenizer),
        "tokenizer_config.json": tokenizer_config(),
        "generation_config.json": generation_config(tokenizer),
        "preprocessor_config.json": image_processor_config(),
        "processor_config.json": processor_config(),
    }


def model_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """`config.json`: a LLaVA-NeXT of about five million weights."""
    ids = {name: tokenizer.token_to_id(token) for name, token in SPECIAL.items()}
    return {
        "_name_or_path": NAME,
        "architectures": ["LlavaNextForConditionalGeneration"],
        "model_type": "llava_next",
        "image_grid_pinpoints": PINPOINTS,
        "image_token_index": tokenizer.token_to_id(IMAGE_TOKEN),
        "multimodal_projector_bias": True,
        "projector_hidden_act": "gelu",
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "bos_token_id": ids["bos_token"],
        "eos_token_id": ids["eos_token"],
        "pad_token_id": ids["pad_token"],
        "text_config": {
            "architectures": ["MistralForCausalLM"],
            "model_type": "mistral",
            "vocab_size": tokenizer.get_vocab_size(),
            "hidden_size": 256,
            "intermediate_size": 512,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 64,
            "max_position_embeddings": POSITIONS,
            "rope_theta": 10000.0,
            "rms_norm_eps": 1e-5,
            "sliding_window": None,
            "tie_word_embeddings": False,
            "bos_token_id": ids["bos_token"],
            "eos_token_id": ids["eos_token"],
            "pad_token_id": ids["pad_token"],
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": 192,
            "intermediate_size": 384,
            "num_hidden_layers": 5,
            "num_attention_heads": 6,
            "image_size": TILE,
            "patch_size": PATCH,
            "projection_dim": 192,
        },
    }


def tokenizer_config() -> dict[str, Any]:
    """`tokenizer_config.json`."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "processor_class": "LlavaNextProcessor",
        "model_max_length": POSITIONS,
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
        "extra_special_tokens": {"image_token": IMAGE_TOKEN},
        **SPECIAL,
    }


def generation_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """`generation_config.json`: greedy, until `</s>`."""
    names = ("bos_token", "eos_token", "pad_token")
    return {f"{name}_id": tokenizer.token_to_id(SPECIAL[name]) for name in names} | {"do_sample": False}


def image_processor_config() -> dict[str, Any]:
    """`preprocessor_config.json`, with CLIP's mean and deviation."""
    return {
        "image_processor_type": "LlavaNextImageProcessor",
        "processor_class": "LlavaNextProcessor",
        "aspect_ratio_setting": "anyres",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": TILE},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": TILE, "width": TILE},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "do_pad": True,
        "image_grid_pinpoints": PINPOINTS,
    }


def processor_config() -> dict[str, Any]:
    """`processor_config.json`."""
    return {
        "processor_class": "LlavaNextProcessor",
        "image_token": IMAGE_TOKEN,
        "num_additional_image_tokens": 1,
        "patch_size": PATCH,
        "vision_feature_select_strategy": "default",
    }
