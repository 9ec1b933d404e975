"""Qwen3-VL: dense and mixture-of-experts models, each in an Instruct and a Thinking edition."""

from __future__ import annotations

from typing import Any

from vlm_run import BoxCoordinates, DynamicResolution, ModelSpec
from vlm_run_qwen_vl.common import CONTROL_TOKENS_3, quantized, spec
from vlm_run_qwen_vl.timed_video import VIDEO

# preprocessor_config.json of Qwen/Qwen3-VL-8B-Instruct: `size` from 65536 to 16777216.
_VISION = DynamicResolution(
    patch_size=16, merge_size=2, min_pixels=65536, max_pixels=16777216, downscaled_decode=True
)

_REASONING_END = "</think>"
# Fields that differ between the editions. They have the same config.json and differ in the chat template.
_EDITIONS: dict[str, dict[str, Any]] = {
    "Instruct": {
        "chat_template": "templates/qwen3-vl.jinja",
        "control_tokens": CONTROL_TOKENS_3,
    },
    "Thinking": {
        "chat_template": "templates/qwen3-vl-thinking.jinja",
        # The last statement of the template: the answer starts with reasoning.
        "template_match": r"'<|im_start|>assistant\n<think>\n'",
        "reasoning_end": _REASONING_END,
        # It is parsed in answers. In user text, the tokenizer's own list of special tokens keeps it text.
        "control_tokens": tuple(token for token in CONTROL_TOKENS_3 if token != _REASONING_END),
    },
}


def specs() -> list[ModelSpec]:
    """The model types: sizes in the order of the collection on the hub."""
    return [
        model
        for edition in _EDITIONS
        for model in (
            # `text_config.hidden_size`; for 2B and the mixtures, that of the Qwen3 models they are based on.
            _dense("2B", 2048, edition),
            _dense("4B", 2560, edition),
            _dense("8B", 4096, edition),
            # 33B parameters take 67 GB, which leaves no memory for a context on one GPU.
            _dense("32B", 5120, edition, gpus=2, fp8_gpus=1),
            # 62 GB, and 3 GB for a context.
            _mixture("30B-A3B", 2048, edition),
            # "A minimum of 8 GPUs, each with at least 80 GB": vLLM's recipe for Qwen3-VL.
            _mixture("235B-A22B", 4096, edition, gpus=8, fp8_gpus=4),
        )
    ]


def _dense(size: str, hidden_size: int, edition: str, gpus: int = 1, fp8_gpus: int = 1) -> ModelSpec:
    return _spec(size, hidden_size, edition, gpus, fp8_gpus, "Qwen3VLForConditionalGeneration")


def _mixture(size: str, hidden_size: int, edition: str, gpus: int = 1, fp8_gpus: int = 1) -> ModelSpec:
    return _spec(size, hidden_size, edition, gpus, fp8_gpus, "Qwen3VLMoeForConditionalGeneration")


def _spec(
    size: str, hidden_size: int, edition: str, gpus: int, fp8_gpus: int, architecture: str
) -> ModelSpec:
    name = f"Qwen3-VL-{size}-{edition}"
    return spec(
        name,
        hidden_size,
        gpus,
        modelscope_id=f"Qwen/{name}",  # ms-swift 4.x
        # `qwen3_vl` and `qwen3_moe_vl` in ms-swift's swift/model/models/qwen.py (3602360).
        quantized=quantized(name, "FP8", gpus={"FP8": fp8_gpus} if gpus > 1 else None),
        architecture=architecture,
        vision=_VISION,
        video=VIDEO,
        video_placeholder="<|vision_start|><|video_pad|><|vision_end|>",
        # cookbooks/2d_grounding.ipynb of QwenLM/Qwen3-VL: "relative coordinates ranging from 0 to 1000".
        box_coordinates=BoxCoordinates(maximum=1000),
        context_length=262144,  # text_config.max_position_embeddings
        **_EDITIONS[edition],
    )
