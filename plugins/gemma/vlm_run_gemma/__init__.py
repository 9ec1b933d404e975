"""Gemma 3, as Google publishes it; Gemma 4 is in `gemma_4`.

Facts without another source are from transformers' script `convert_gemma3_weights_orbax_to_hf.py`, which
wrote the published checkpoints.
"""

from __future__ import annotations

from typing import Any

from vlm_run import ModelSpec, hookimpl
from vlm_run_gemma.gemma_4 import gemma_4_specs
from vlm_run_gemma.vision import SoftTokens

vlm_run_contract = ">=1.1,<2"

_IMAGE_SIZE = 896  # `size` of the image processor, and `image_size` of the vision configuration
# `image_seq_length` of the image processor.
_VISION = SoftTokens(image_size=_IMAGE_SIZE, image_seq_length=256, downscaled_decode=True)

# `hidden_size` of the text configuration of each size.
_HIDDEN_SIZES = {"4b": 2560, "12b": 3840, "27b": 5376}


def _spec(size: str, **differs: Any) -> ModelSpec:
    return ModelSpec(
        model_type=f"gemma-3-{size}-it",
        hf_id=f"google/gemma-3-{size}-it",
        architecture="Gemma3ForConditionalGeneration",
        config_match={
            "text_config.hidden_size": _HIDDEN_SIZES[size],
            "text_config.vocab_size": 262208,
            "vision_config.image_size": _IMAGE_SIZE,
        },
        chat_template="templates/gemma-3.jinja",
        image_placeholder="<start_of_image>",  # `boi_token`
        vision=_VISION,
        context_length=131072,  # default of `max_position_embeddings` in transformers' Gemma3TextConfig
        control_tokens=(
            "<pad>",
            "<eos>",
            "<bos>",
            "<unk>",
            "<start_of_turn>",
            "<end_of_turn>",
            "<start_of_image>",
            "<end_of_image>",
            "<image_soft_token>",
        ),
        stop=("<end_of_turn>",),  # token 106 of `eos_token_id`, [1, 106]
        bos_token="<bos>",
        eos_token="<eos>",
        **differs,
    )


@hookimpl
def model_specs() -> list[ModelSpec]:
    return [
        _spec("4b"),
        _spec("12b"),
        # 54 GB of weights in bfloat16 leave room for this context on one GPU of 80 GB.
        _spec("27b", engine_kwargs={"max_model_len": 32768}),
        *gemma_4_specs(),
    ]
