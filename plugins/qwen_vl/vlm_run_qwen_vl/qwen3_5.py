"""Qwen3.5 and Qwen3.6: Qwen3-VL's image processor, hybrid attention, and reasoning that can be left out.

Repositories: `qwen3_5` and `qwen3_5_moe` in ms-swift's swift/model/models/qwen.py (3602360). The plugin
vlm-run-auto serves Qwen3.5-122B-A10B and -397B-A17B.
"""

from __future__ import annotations

from typing import Any

from vlm_run import BoxCoordinates, DynamicResolution, ModelSpec
from vlm_run_qwen_vl.common import CONTROL_TOKENS_3, quantized, spec
from vlm_run_qwen_vl.timed_video import VIDEO

# preprocessor_config.json of Qwen/Qwen3.5-2B-Base and of Qwen/Qwen3.6-35B-A3B-FP8: Qwen3-VL's values.
_VISION = DynamicResolution(
    patch_size=16, merge_size=2, min_pixels=65536, max_pixels=16777216, downscaled_decode=True
)
_REASONING_END = "</think>"

# What is in the chat template of one generation and not of the other; their config.json is the same. Qwen3.6
# keeps the reasoning of earlier answers if it is told to. By default both render the same prompts.
_TEMPLATES = {
    "3.5": "{%- if loop.index0 > ns.last_query_index %}",
    "3.6": "preserve_thinking is defined and preserve_thinking is true",
}


def specs() -> list[ModelSpec]:
    """The model types: `hidden_size` as the model cards give it under "Hidden Dimension"."""
    return [
        # "Qwen3.5-0.8B operates in non-thinking mode by default": its model card, as that of 2B.
        _dense("3.5", "0.8B", 1024, thinks=False),
        _dense("3.5", "2B", 2048, thinks=False),
        _dense("3.5", "4B", 2560),
        _dense("3.5", "9B", 4096),
        # 56 GB of weights.
        _dense("3.5", "27B", 5120, fp8=True, template_match=_TEMPLATES["3.5"]),
        _mixture("3.5", template_match=_TEMPLATES["3.5"]),
        _dense("3.6", "27B", 5120, fp8=True, template_match=_TEMPLATES["3.6"]),
        _mixture("3.6", template_match=_TEMPLATES["3.6"]),
    ]


def _dense(generation: str, size: str, hidden_size: int, fp8: bool = False, **differs: Any) -> ModelSpec:
    name = f"Qwen{generation}-{size}"
    kinds = ("FP8",) if fp8 else ()
    architecture = "Qwen3_5ForConditionalGeneration"
    return _spec(name, hidden_size, architecture, quantized=quantized(name, *kinds), **differs)


def _mixture(generation: str, **differs: Any) -> ModelSpec:
    # 72 GB of weights, which leave no memory for a context on one GPU; 36 GB in FP8.
    name = f"Qwen{generation}-35B-A3B"
    fp8 = quantized(name, "FP8", gpus={"FP8": 1})
    return _spec(name, 2048, "Qwen3_5MoeForConditionalGeneration", gpus=2, quantized=fp8, **differs)


def _spec(
    name: str, hidden_size: int, architecture: str, gpus: int = 1, thinks: bool = True, **differs: Any
) -> ModelSpec:
    return spec(
        name,
        hidden_size,
        gpus,
        modelscope_id=f"Qwen/{name}",
        architecture=architecture,
        chat_template="templates/qwen3_5.jinja",
        template_kwargs={"enable_thinking": thinks},
        vision=_VISION,
        video=VIDEO,
        video_placeholder="<|vision_start|><|video_pad|><|vision_end|>",
        # Issue 4 of QwenLM/Qwen3.8-Flash-Next: [0, 1000] in 3.5, and "still" in its successor (a maintainer).
        box_coordinates=BoxCoordinates(maximum=1000),
        context_length=262144,  # text_config.max_position_embeddings
        reasoning_end=_REASONING_END,
        # It is parsed in answers. In user text, the tokenizer's own list of special tokens keeps it text.
        control_tokens=tuple(token for token in CONTROL_TOKENS_3 if token != _REASONING_END),
        **differs,
    )
