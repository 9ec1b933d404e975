"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL, as Qwen publishes them.

Nothing here but data: vLLM and transformers know the architectures.
"""

from __future__ import annotations

from typing import Any

from vlm_run import DynamicResolution, ModelSpec, hookimpl

vlm_run_contract = ">=1,<2"

# preprocessor_config.json of Qwen/Qwen2-VL-7B-Instruct; Qwen2.5-VL's has the same values.
_VISION_2 = DynamicResolution(patch_size=14, merge_size=2, min_pixels=3136, max_pixels=12845056)
# preprocessor_config.json of Qwen/Qwen3-VL-8B-Instruct: `size` from 65536 to 16777216.
_VISION_3 = DynamicResolution(patch_size=16, merge_size=2, min_pixels=65536, max_pixels=16777216)

# Tokens 151643 to 151656: `added_tokens_decoder` of Qwen2-VL's tokenizer_config.json.
_CONTROL_TOKENS_2 = (
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
_CONTROL_TOKENS_2_5 = (
    *_CONTROL_TOKENS_2,
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
_CONTROL_TOKENS_3 = (*_CONTROL_TOKENS_2_5, "<tool_response>", "</tool_response>", "<think>", "</think>")


def _spec(name: str, hidden_size: int, gpus: int = 1, **differs: Any) -> ModelSpec:
    """A spec with what all have in common.

    Args:
        name: The repository's name on the hub.
        hidden_size: Of the language model, in config.json.
        gpus: How many of 80 GB the weights in bfloat16 need, with room for a whole context.
        differs: What tells the generations apart.
    """
    return ModelSpec(
        # ms-swift 2.x writes a point in a name as `_`: `qwen2_5-7b-instruct`.
        model_type=name.lower().replace(".", "_"),
        hf_id=f"Qwen/{name}",
        # Configurations saved by transformers 4.52 or later nest the language model's part.
        config_match={"hidden_size": hidden_size, "text_config.hidden_size": hidden_size},
        image_placeholder="<|vision_start|><|image_pad|><|vision_end|>",
        engine_kwargs={
            # Qwen2-VL's whole context, room for the largest picture's 16,384 tokens. The later
            # generations take more, at the price of the memory for it: give `max_model_len`.
            "max_model_len": 32768,
            # Without this vLLM measures its memory with a video.
            "limit_mm_per_prompt": {"video": 0},
            **({"tensor_parallel_size": gpus} if gpus > 1 else {}),
        },
        # eos_token_id of config.json is the first; ms-swift 2.6.1 stops at the second, too.
        stop=("<|im_end|>", "<|endoftext|>"),
        **differs,
    )


def _qwen2_vl(size: str, hidden_size: int, gpus: int = 1) -> ModelSpec:
    name = f"Qwen2-VL-{size}-Instruct"
    return _spec(
        name,
        hidden_size,
        gpus,
        modelscope_id=f"qwen/{name}",  # as ms-swift 2.6.1 spells the owner
        architecture="Qwen2VLForConditionalGeneration",
        chat_template="templates/qwen2-vl.jinja",
        vision=_VISION_2,
        context_length=32768,  # max_position_embeddings
        control_tokens=_CONTROL_TOKENS_2,
    )


def _qwen2_5_vl(size: str, hidden_size: int, gpus: int = 1) -> ModelSpec:
    name = f"Qwen2.5-VL-{size}-Instruct"
    return _spec(
        name,
        hidden_size,
        gpus,
        modelscope_id=f"Qwen/{name}",  # ms-swift 3.x; 2.x ended before these models
        architecture="Qwen2_5_VLForConditionalGeneration",
        chat_template="templates/qwen2-vl.jinja",
        vision=_VISION_2,
        context_length=128000,  # max_position_embeddings
        control_tokens=_CONTROL_TOKENS_2_5,
    )


@hookimpl
def model_specs() -> list[ModelSpec]:
    return [
        _qwen2_vl("2B", hidden_size=1536),
        _qwen2_vl("7B", hidden_size=3584),
        # 72B parameters are 145 GB: more than two GPUs leave.
        _qwen2_vl("72B", hidden_size=8192, gpus=4),
        _qwen2_5_vl("3B", hidden_size=2048),
        _qwen2_5_vl("7B", hidden_size=3584),
        _qwen2_5_vl("72B", hidden_size=8192, gpus=4),
        _spec(
            "Qwen3-VL-8B-Instruct",
            hidden_size=4096,
            modelscope_id="Qwen/Qwen3-VL-8B-Instruct",  # ms-swift 4.x
            architecture="Qwen3VLForConditionalGeneration",
            chat_template="templates/qwen3-vl.jinja",
            vision=_VISION_3,
            context_length=262144,  # text_config.max_position_embeddings
            control_tokens=_CONTROL_TOKENS_3,
        ),
    ]
