"""LLaVA 1.5 and 1.6 (LLaVA-NeXT), as published by llava-hf.

Nothing here but data: vLLM and transformers know the architectures.
"""

from __future__ import annotations

from typing import Any

from vlm_run import AnyResolution, FixedResolution, ModelSpec, hookimpl

# CLIP ViT-L/14 at 336 pixels: vision_config of all checkpoints below.
_LLAVA_1_5 = FixedResolution(image_size=336, patch_size=14)
# image_grid_pinpoints of config.json and preprocessor_config.json of llava-hf/llava-v1.6-*.
_LLAVA_1_6 = AnyResolution(
    image_size=336,
    patch_size=14,
    image_grid_pinpoints=((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)),
)


def _spec(**differs: Any) -> ModelSpec:
    """A spec with what all have in common: Llama's or Mistral's special tokens and `<image>`."""
    return ModelSpec(
        image_placeholder="<image>",
        # added_tokens of tokenizer.json of llava-hf/llava-1.5-7b-hf and llava-v1.6-mistral-7b-hf.
        control_tokens=("<unk>", "<s>", "</s>", "<image>", "<pad>"),
        stop=("</s>",),
        bos_token="<s>",  # written by the tokenizer, not by the templates
        eos_token="</s>",
        **differs,
    )


def _llava_1_5(size: str, hidden_size: int) -> ModelSpec:
    return _spec(
        model_type=f"llava1_5-{size}-instruct",
        hf_id=f"llava-hf/llava-1.5-{size}-hf",
        modelscope_id=f"swift/llava-1.5-{size}-hf",  # ms-swift 2.6.1, supported models
        architecture="LlavaForConditionalGeneration",
        config_match={"text_config.hidden_size": hidden_size},
        chat_template="templates/llava-1.5.jinja",
        vision=_LLAVA_1_5,
        context_length=4096,  # text_config.max_position_embeddings
        # vLLM's multi-image example: this model was not trained on several, and answers poorly.
        engine_kwargs={"max_model_len": 4096, "limit_mm_per_prompt": {"image": 4}},
    )


def _llava_1_6_vicuna(size: str, hidden_size: int) -> ModelSpec:
    return _spec(
        model_type=f"llava1_6-vicuna-{size}-instruct",
        hf_id=f"llava-hf/llava-v1.6-vicuna-{size}-hf",
        modelscope_id=f"swift/llava-v1.6-vicuna-{size}-hf",  # ms-swift 2.6.1, supported models
        architecture="LlavaNextForConditionalGeneration",
        config_match={"text_config.model_type": "llama", "text_config.hidden_size": hidden_size},
        chat_template="templates/llava-1.5.jinja",
        vision=_LLAVA_1_6,
        context_length=4096,  # Vicuna 1.5's max_position_embeddings
        # One image takes up to 2,928 of the 4,096 tokens, so that two large ones do not fit.
        engine_kwargs={"max_model_len": 4096, "limit_mm_per_prompt": {"image": 3}},
    )


@hookimpl
def model_specs() -> list[ModelSpec]:
    return [
        # Hidden sizes are those of Vicuna 7B and 13B.
        _llava_1_5("7b", hidden_size=4096),
        _llava_1_5("13b", hidden_size=5120),
        _spec(
            model_type="llava1_6-mistral-7b-instruct",
            hf_id="llava-hf/llava-v1.6-mistral-7b-hf",
            modelscope_id="swift/llava-v1.6-mistral-7b-hf",  # ms-swift 2.6.1, supported models
            architecture="LlavaNextForConditionalGeneration",
            config_match={"text_config.model_type": "mistral"},
            chat_template="templates/llava-1.6-mistral.jinja",
            vision=_LLAVA_1_6,
            context_length=32768,  # Mistral-7B-Instruct-v0.2's max_position_embeddings
            # vLLM's own example stops at 8,192 tokens.
            engine_kwargs={"max_model_len": 8192, "limit_mm_per_prompt": {"image": 4}},
        ),
        _llava_1_6_vicuna("7b", hidden_size=4096),
        _llava_1_6_vicuna("13b", hidden_size=5120),
    ]
