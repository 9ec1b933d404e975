"""Gemma 4, as Google publishes it.

Facts without another source are from transformers' script `convert_gemma4_weights.py` (0f3f063), which
wrote the published checkpoints. The chat templates are those that Google published on 2026-07-09.
"""

from __future__ import annotations

from vlm_run import ModelSpec
from vlm_run_gemma.vision import SoftTokenBudget

# `max_soft_tokens` of the image processor; 1,120 and fewer are possible, see `SoftTokenBudget`.
_VISION = SoftTokenBudget(patch_size=16, pooling_kernel_size=3, max_soft_tokens=280, downscaled_decode=True)

# Without videos and audio. With videos, of which one takes 2,496 tokens, vLLM would refuse a smaller
# `max_num_batched_tokens`, which is its default on small GPUs (`Gemma4ProcessingInfo` in vLLM).
_IMAGES_ONLY = {"limit_mm_per_prompt": {"video": 0, "audio": 0}}

_CONTROL_TOKENS = (
    "<pad>",
    "<eos>",
    "<bos>",
    "<unk>",
    "<|image|>",
    "<|image>",
    "<image|>",
    "<|audio|>",
    "<|audio>",
    "<audio|>",
    "<|video|>",  # which transformers' `Gemma4Processor` adds
    "<|turn>",
    "<turn|>",
    "<|channel>",
    "<channel|>",
    "<|think|>",
    '<|"|>',
    "<|tool_response>",
    "<tool_response|>",
    "<|tool_call>",
    "<tool_call|>",
    "<|tool>",
    "<tool|>",
)


def _spec(
    size: str,
    hidden_size: int,
    context_length: int,
    *,
    large: bool,
    architecture: str = "Gemma4ForConditionalGeneration",
    max_model_len: int | None = None,
) -> ModelSpec:
    """A spec.

    Args:
        size: As in the repository's name.
        hidden_size: That of the text configuration.
        context_length: Its `max_position_embeddings`.
        large: Whether the chat template begins an answer without reasoning with an empty reasoning, as
            those of 12B, 26B-A4B and 31B do and those of E2B and E4B do not.
        architecture: As in config.json.
        max_model_len: The context with which the engine starts, if it is shorter.
    """
    return ModelSpec(
        model_type=f"gemma-4-{size.lower()}-it",
        hf_id=f"google/gemma-4-{size}-it",
        architecture=architecture,
        config_match={"text_config.hidden_size": hidden_size},
        chat_template="templates/gemma-4.jinja",
        image_placeholder="<|image|>",
        vision=_VISION,
        context_length=context_length,
        control_tokens=_CONTROL_TOKENS,
        stop=("<turn|>", "<|tool_response>"),  # `eot_token` and `str_token` of `eos_token_id`
        reasoning_end="<channel|>",
        # Otherwise the tokens around the reasoning are missing, and it runs into the answer.
        sampling_params={"skip_special_tokens": False},
        bos_token="<bos>",
        eos_token="<eos>",
        template_kwargs={"enable_thinking": False, "empty_reasoning": large},
        engine_kwargs={**_IMAGES_ONLY, **({"max_model_len": max_model_len} if max_model_len else {})},
    )


def gemma_4_specs() -> list[ModelSpec]:
    """The model types of Gemma 4."""
    return [
        _spec("E2B", 1536, 131072, large=False),
        _spec("E4B", 2560, 131072, large=False),
        # Defaults of transformers' `Gemma4UnifiedConfig` and of its image processor.
        _spec(
            "12B",
            3840,
            262144,
            large=True,
            architecture="Gemma4UnifiedForConditionalGeneration",
            max_model_len=65536,
        ),
        # 52 GB and 62 GB of weights in bfloat16 leave room for this context on one GPU of 80 GB.
        _spec("26B-A4B", 2816, 262144, large=True, max_model_len=32768),
        _spec("31B", 5376, 262144, large=True, max_model_len=8192),
    ]
