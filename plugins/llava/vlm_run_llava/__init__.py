"""LLaVA 1.5, LLaVA 1.6 (LLaVA-NeXT), LLaVA-NeXT-Video and LLaVA-OneVision, as llava-hf publishes them.

This plugin contains only data: vLLM and transformers implement the architectures.
"""

from __future__ import annotations

from typing import Any

from vlm_run import AnyResolution, FixedResolution, ModelSpec, hookimpl
from vlm_run_llava import llava_next_large, next_video, onevision

vlm_run_contract = ">=1.2,<2"

# CLIP ViT-L/14 at 336 pixels: `vision_config` of all 1.5 and 1.6 checkpoints. The class token is dropped
# (`vision_feature_select_strategy` is "default").
_IMAGE_SIZE, _PATCH_SIZE = 336, 14
# `image_grid_pinpoints` of config.json of llava-hf/llava-v1.6-{mistral-7b,vicuna-7b,vicuna-13b}-hf.
_PINPOINTS = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))

_LLAVA_1_5 = FixedResolution(image_size=_IMAGE_SIZE, patch_size=_PATCH_SIZE, downscaled_decode=True)
_LLAVA_1_6 = AnyResolution(
    image_size=_IMAGE_SIZE, patch_size=_PATCH_SIZE, image_grid_pinpoints=_PINPOINTS, downscaled_decode=True
)

# The prompts and token counts below depend on these values. Matching them prevents a checkpoint of the
# same architecture with another tokenizer or vision tower from being mistaken for one of these models.
_MATCH_1_5 = {"text_config.vocab_size": 32064, "vision_config.image_size": _IMAGE_SIZE}
_MATCH_NEXT = {
    "vision_config.image_size": _IMAGE_SIZE,
    "image_grid_pinpoints": [list(pinpoint) for pinpoint in _PINPOINTS],
}
_MATCH_1_6 = {**_MATCH_1_5, **_MATCH_NEXT}
# config.json of both 7B Vicunas omits `hidden_size`, for which Llama's default is 4096; those of the 13B
# models set it. The additional entry, which all of them share, makes 7B win where the size is omitted.
_MATCH_VICUNA = {
    "7b": {
        "text_config.model_type": "llama",
        "text_config.hidden_size": 4096,
        "vision_config.model_type": "clip_vision_model",
    },
    "13b": {"text_config.model_type": "llama", "text_config.hidden_size": 5120},
}


def _spec(name: str, **differs: Any) -> ModelSpec:
    """A spec with the fields that all model types share: the placeholder and the special tokens."""
    return ModelSpec(
        # Both ids as in the table of supported models of ms-swift 2.6.1.
        hf_id=f"llava-hf/{name}",
        modelscope_id=f"swift/{name}",
        image_placeholder="<image>",
        # Llama's and Mistral's special tokens, then 32000 and 32001 (`image_token_index` and
        # `pad_token_id` of config.json of llava-hf/llava-1.5-7b-hf).
        control_tokens=("<unk>", "<s>", "</s>", "<image>", "<pad>"),
        stop=("</s>",),  # eos_token_id 2 in generation_config.json
        **differs,
    )


def _llava_1_5(size: str) -> ModelSpec:
    return _spec(
        f"llava-1.5-{size}-hf",
        model_type=f"llava1_5-{size}-instruct",
        architecture="LlavaForConditionalGeneration",
        config_match={**_MATCH_1_5, **_MATCH_VICUNA[size]},
        chat_template="templates/llava-1.5.jinja",
        vision=_LLAVA_1_5,
        context_length=4096,  # text_config.max_position_embeddings
        engine_kwargs={"max_model_len": 4096},
    )


def _llava_1_6(base: str, **differs: Any) -> ModelSpec:
    return _spec(
        f"llava-v1.6-{base}-hf",
        model_type=f"llava1_6-{base}-instruct",
        architecture="LlavaNextForConditionalGeneration",
        vision=_LLAVA_1_6,
        **differs,
    )


def _llava_1_6_vicuna(size: str) -> ModelSpec:
    return _llava_1_6(
        f"vicuna-{size}",
        config_match={**_MATCH_1_6, **_MATCH_VICUNA[size]},
        chat_template="templates/llava-1.5.jinja",
        context_length=4096,  # text_config.max_position_embeddings
        # One image takes up to 2,928 of these tokens, so two large images do not fit.
        engine_kwargs={"max_model_len": 4096},
    )


@hookimpl
def model_specs() -> list[ModelSpec]:
    return [
        _llava_1_5("7b"),
        _llava_1_5("13b"),
        _llava_1_6(
            "mistral-7b",
            config_match={**_MATCH_1_6, "text_config.model_type": "mistral"},
            chat_template="templates/llava-1.6-mistral.jinja",
            context_length=32768,  # text_config.max_position_embeddings; sliding_window is null
            engine_kwargs={"max_model_len": 32768},
        ),
        _llava_1_6_vicuna("7b"),
        _llava_1_6_vicuna("13b"),
        *llava_next_large.specs(_LLAVA_1_6, _MATCH_NEXT),
        *next_video.specs(),
        *onevision.specs(),
    ]
