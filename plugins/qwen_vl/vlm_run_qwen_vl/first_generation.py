"""Qwen-VL and Qwen-VL-Chat of 2023, which vLLM served up to 0.23.

They remain listed so that users learn which model replaces them. Their prompts follow
tokenization_qwen.py and qwen_generation_utils.py on the hub; there is no chat template.
"""

from __future__ import annotations

from vlm_run import BoxCoordinates, FixedResolution, ModelSpec


def specs() -> list[ModelSpec]:
    """The two model types, under ms-swift 2.6.1's names."""
    return [
        _spec("Qwen-VL", "templates/qwen-vl.jinja"),
        _spec("Qwen-VL-Chat", "templates/qwen-vl-chat.jinja"),
    ]


def _spec(name: str, chat_template: str) -> ModelSpec:
    return ModelSpec(
        model_type=name.lower(),
        hf_id=f"Qwen/{name}",
        modelscope_id=f"qwen/{name}",
        # vLLM called it QwenVLForConditionalGeneration, which users set with `hf_overrides`.
        architecture="QWenLMHeadModel",
        config_match={"visual.image_size": 448},
        # `_PREVIOUSLY_SUPPORTED_MODELS` in vLLM's registry: "supported in vLLM until v0.23.0".
        vllm="<0.24",
        replaced_by="qwen2-vl-7b-instruct",
        chat_template=chat_template,
        image_placeholder="Picture {index}: <img></img>",
        # A resampler reduces 32 by 32 patches of 14 pixels to 256 tokens for every image.
        vision=FixedResolution(image_size=448, patch_size=28, downscaled_decode=True),
        # Coordinates in [0, 1000): Qwen-VL's report (arXiv 2308.12966), on its input and output.
        box_coordinates=BoxCoordinates(maximum=1000),
        context_length=2048,  # seq_length
        # SPECIAL_TOKENS and the tags of tokenization_qwen.py.
        control_tokens=(
            "<|endoftext|>",
            "<|im_start|>",
            "<|im_end|>",
            "<ref>",
            "</ref>",
            "<box>",
            "</box>",
            "<quad>",
            "</quad>",
            "<img>",
            "</img>",
            "<imgpad>",
        ),
        stop=("<|im_end|>", "<|endoftext|>"),
    )
