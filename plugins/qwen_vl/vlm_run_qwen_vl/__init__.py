"""Qwen2-VL, Qwen2.5-VL, Qwen3-VL, Qwen3.5 and Qwen3.6, as Qwen publishes them; Qwen-VL is only listed.

This plugin contains only data: vLLM and transformers implement the architectures.
"""

from __future__ import annotations

from vlm_run import BoxCoordinates, DynamicResolution, DynamicVideo, ModelSpec, hookimpl
from vlm_run_qwen_vl import first_generation, qwen3_5, qwen3_vl
from vlm_run_qwen_vl.common import CONTROL_TOKENS_2, CONTROL_TOKENS_2_5, quantized, spec

vlm_run_contract = ">=1.2,<2"

# preprocessor_config.json of Qwen/Qwen2-VL-7B-Instruct; Qwen2.5-VL's has the same values.
_VISION_2 = DynamicResolution(
    patch_size=14, merge_size=2, min_pixels=3136, max_pixels=12845056, downscaled_decode=True
)
# qwen-vl-utils 0.0.14: VIDEO_MIN_TOKEN_NUM, VIDEO_MAX_TOKEN_NUM and 90 % of MODEL_SEQ_LEN,
# in tokens of 28 × 28 pixels. The number of frames is as the class has it by default.
_VIDEO_2 = DynamicVideo(
    patch_size=14,
    merge_size=2,
    min_pixels=128 * 28 * 28,
    max_pixels=768 * 28 * 28,
    total_pixels=int(128000 * 28 * 28 * 0.9),
)


# Quantized repositories: `register_model` of `qwen2_vl` and `qwen2_5_vl` in ms-swift's
# swift/llm/model/model/qwen.py (00fc09e). Of the 72B models, AWQ and Int4 take 43 GB and Int8 takes 77 GB.
_KINDS_2 = ("AWQ", "GPTQ-Int4", "GPTQ-Int8")
_GPUS_72B = {"AWQ": 1, "GPTQ-Int4": 1, "GPTQ-Int8": 2}


def _qwen2_vl(size: str, hidden_size: int, gpus: int = 1) -> ModelSpec:
    name = f"Qwen2-VL-{size}-Instruct"
    return spec(
        name,
        hidden_size,
        gpus,
        quantized=quantized(name, *_KINDS_2, gpus=_GPUS_72B if gpus > 1 else None),
        modelscope_id=f"qwen/{name}",  # as ms-swift 2.6.1 spells the owner
        architecture="Qwen2VLForConditionalGeneration",
        chat_template="templates/qwen2-vl.jinja",
        vision=_VISION_2,
        video=_VIDEO_2,
        video_placeholder="<|vision_start|><|video_pad|><|vision_end|>",
        # Coordinates in [0, 1000): Qwen2-VL's technical report (arXiv 2409.12191), on visual grounding.
        box_coordinates=BoxCoordinates(maximum=1000),
        context_length=32768,  # max_position_embeddings
        control_tokens=CONTROL_TOKENS_2,
    )


def _qwen2_5_vl(size: str, hidden_size: int, gpus: int = 1) -> ModelSpec:
    name = f"Qwen2.5-VL-{size}-Instruct"
    return spec(
        name,
        hidden_size,
        gpus,
        quantized=quantized(name, "AWQ", gpus={"AWQ": 1} if gpus > 1 else None),
        modelscope_id=f"Qwen/{name}",  # ms-swift 3.x; 2.x ended before these models
        architecture="Qwen2_5_VLForConditionalGeneration",
        chat_template="templates/qwen2-vl.jinja",
        vision=_VISION_2,
        video=_VIDEO_2,
        video_placeholder="<|vision_start|><|video_pad|><|vision_end|>",
        # cookbooks/spatial_understanding.ipynb of QwenLM/Qwen2.5-VL scales by the processor's image grid. An
        # author in issue 940 of QwenLM/Qwen3-VL: by the size of the image that the model gets.
        box_coordinates=BoxCoordinates(maximum=None),
        context_length=128000,  # max_position_embeddings
        control_tokens=CONTROL_TOKENS_2_5,
    )


@hookimpl
def model_specs() -> list[ModelSpec]:
    return [
        _qwen2_vl("2B", hidden_size=1536),
        _qwen2_vl("7B", hidden_size=3584),
        # 72B parameters take 145 GB, too much for two GPUs.
        _qwen2_vl("72B", hidden_size=8192, gpus=4),
        _qwen2_5_vl("3B", hidden_size=2048),
        _qwen2_5_vl("7B", hidden_size=3584),
        # 33B parameters take 67 GB, which leaves no memory for a context on one GPU.
        _qwen2_5_vl("32B", hidden_size=5120, gpus=2),
        _qwen2_5_vl("72B", hidden_size=8192, gpus=4),
        *qwen3_vl.specs(),
        *qwen3_5.specs(),
        *first_generation.specs(),
    ]


@hookimpl
def register_with_vllm() -> None:
    from vllm import ModelRegistry

    # By name: the model is imported only where it runs.
    ModelRegistry.register_model(
        "Qwen2VLForConditionalGeneration", "vlm_run_qwen_vl.vllm_model:Qwen2VLForConditionalGeneration"
    )
