"""Shared by Qwen2-VL and its successors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlm_run import ModelSpec

# Tokens 151643 to 151656: `added_tokens_decoder` of Qwen2-VL's tokenizer_config.json.
CONTROL_TOKENS_2 = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# Tokens 151657 to 151664, which Qwen2.5 added.
CONTROL_TOKENS_2_5 = (
    *CONTROL_TOKENS_2,
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
)
# Tokens 151665 to 151668, which Qwen3 added.
CONTROL_TOKENS_3 = (*CONTROL_TOKENS_2_5, "<tool_response>", "</tool_response>", "<think>", "</think>")


def quantized(name: str, *kinds: str, gpus: Mapping[str, int] | None = None) -> dict[str, dict[str, Any]]:
    """Qwen's quantized repositories of a model.

    Args:
        name: The repository's name on the hub.
        kinds: Endings of the names of the quantized repositories.
        gpus: How many GPUs with 80 GB a kind needs, where that differs from the model in bfloat16.
    """
    return {
        f"Qwen/{name}-{kind}": {"tensor_parallel_size": gpus[kind]} if gpus and kind in gpus else {}
        for kind in kinds
    }


def spec(name: str, hidden_size: int, gpus: int = 1, **differs: Any) -> ModelSpec:
    """A spec with the fields that all generations share.

    Args:
        name: The repository's name on the hub.
        hidden_size: Hidden size of the language model, in config.json.
        gpus: How many GPUs with 80 GB the weights in bfloat16 and a full context need.
        differs: Fields that differ between generations.
    """
    return ModelSpec(
        # ms-swift 2.x writes a dot in a name as `_`: `qwen2_5-7b-instruct`.
        model_type=name.lower().replace(".", "_"),
        hf_id=f"Qwen/{name}",
        # Configurations saved by transformers 4.52 or later nest the language model's entries.
        config_match={"hidden_size": hidden_size, "text_config.hidden_size": hidden_size},
        image_placeholder="<|vision_start|><|image_pad|><|vision_end|>",
        engine_kwargs={
            # Qwen2-VL's full context, enough for the largest image's 16,384 tokens. Later generations
            # support more, which costs memory: set `max_model_len`.
            "max_model_len": 32768,
            # Otherwise vLLM profiles its memory use with a video; --max-videos allows some.
            "limit_mm_per_prompt": {"video": 0},
            **({"tensor_parallel_size": gpus} if gpus > 1 else {}),
        },
        # eos_token_id of config.json is the first; ms-swift 2.6.1 also stops at the second.
        stop=("<|im_end|>", "<|endoftext|>"),
        **differs,
    )
