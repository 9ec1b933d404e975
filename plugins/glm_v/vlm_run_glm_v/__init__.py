"""GLM-4.1V-Thinking, GLM-4.5V, GLM-4.6V and GLM-OCR, as Z.ai publishes them.

Repositories: `glm4v`, `glm4v_moe` and `glm_ocr` in ms-swift's swift/model/models/glm.py (3602360). Chat
templates: that of GLM-4.1V-9B-Thinking's revision 3c1471e; for the others, the one that Xinference's
llm_family.json (7ecec16) has for GLM-4.5V. ms-swift's swift/template/templates/glm.py (3602360) renders
GLM-4.6V and GLM-4.6V-Flash as it, and GLM-OCR's differs only in what it writes for lists in tool messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlm_run import BoxCoordinates, Limits, ModelSpec, hookimpl
from vlm_run_glm_v.vision import TwoFrames

vlm_run_contract = ">=1.1,<2"

# preprocessor_config.json of GLM-OCR: `size` from 12544 to 9633792. GLM-4.1V's has the same maximum (issue
# 151 of zai-org/GLM-V: 2184 × 2184 pixels), and GLM-4.1V and GLM-4.5V "share identical multimodal
# preprocessing" (the README of zai-org/GLM-V).
_VISION = TwoFrames(
    patch_size=14, merge_size=2, min_pixels=12544 // 2, max_pixels=9633792 // 2, downscaled_decode=True
)

# Written by the templates, by transformers' processors and, around boxes, by the models. `</think>` is parsed
# in answers; in user text, the tokenizer's own list of special tokens keeps it text.
_CONTROL_TOKENS = (
    "<|endoftext|>",
    "[gMASK]",
    "<sop>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
    "<|begin_of_image|>",
    "<|end_of_image|>",
    "<|begin_of_video|>",
    "<|end_of_video|>",
    "<|image|>",
    "<|video|>",
    "<think>",
    "<|begin_of_box|>",
    "<|end_of_box|>",
)

# "Normalized by the image width (for x) or height (for y) and scaled by 1000": the README of zai-org/GLM-V,
# on grounding with GLM-4.1V, GLM-4.5V and GLM-4.6V.
_BOXES = BoxCoordinates(maximum=1000)

# Without videos, for which vLLM would reserve memory.
_ENGINE = {"limit_mm_per_prompt": {"video": 0}}

# `task_prompt_mapping` in glmocr/config.yaml of zai-org/GLM-OCR (cef4d0e),
# whose `text` is `ocr` here, as in other plugins.
_OCR_TASKS = {"ocr": "Text Recognition:", "table": "Table Recognition:", "formula": "Formula Recognition:"}


def _spec(name: str, architecture: str, **differs: Any) -> ModelSpec:
    facts: dict[str, Any] = {
        "chat_template": "templates/glm-4.5v.jinja",
        "template_kwargs": {"enable_thinking": True},
        "engine_kwargs": _ENGINE,
        # Tokens 151329, 151336 and 151338 (`eos_token_id`), by ms-swift's `stop_words` of `glm4`.
        "stop": ("<|endoftext|>", "<|user|>", "<|observation|>"),
        **differs,
    }
    return ModelSpec(
        model_type=name.lower().replace(".", "_"),
        hf_id=f"zai-org/{name}",
        modelscope_id=f"ZhipuAI/{name}",
        architecture=architecture,
        image_placeholder="<|begin_of_image|><|image|><|end_of_image|>",
        vision=_VISION,
        control_tokens=_CONTROL_TOKENS,
        reasoning_end="</think>",
        **facts,
    )


def _mixture(name: str, context_length: int) -> ModelSpec:
    """One of 106B parameters, which differ in the context length: GLM/GLM-V.md of vllm-project/recipes."""
    return _spec(
        name,
        "Glm4vMoeForConditionalGeneration",
        config_match={"text_config.max_position_embeddings": context_length},
        context_length=context_length,
        # "4xH100"; the FP8 weights need 128 GB: models/zai-org of vllm-project/recipes (8959cf6).
        engine_kwargs={**_ENGINE, "tensor_parallel_size": 4},
        quantized={f"zai-org/{name}-FP8": {"tensor_parallel_size": 2}},
        box_coordinates=_BOXES,
    )


@hookimpl
def model_specs() -> list[ModelSpec]:
    return [
        _spec(
            "GLM-4.1V-9B-Thinking",
            "Glm4vForConditionalGeneration",
            config_match={"image_token_id": 151343},
            chat_template="templates/glm-4.1v.jinja",
            template_match="<|assistant|>{{ msg.metadata }}",
            template_kwargs={},  # it always thinks
            context_length=65536,  # text_config.max_position_embeddings
            box_coordinates=_BOXES,
        ),
        _mixture("GLM-4.5V", 65536),
        _mixture("GLM-4.6V", 131072),
        _spec(
            "GLM-4.6V-Flash",
            "Glm4vForConditionalGeneration",
            config_match={"image_token_id": 151363},
            template_match="enable_thinking",
            context_length=131072,  # as of the GLM-4.6V series: README of zai-org/GLM-V
            box_coordinates=_BOXES,
        ),
        _spec(
            "GLM-OCR",
            "GlmOcrForConditionalGeneration",
            context_length=131072,  # text_config.max_position_embeddings
            # Room for the largest image and a page of text.
            engine_kwargs={**_ENGINE, "max_model_len": 16384},
            stop=("<|endoftext|>", "<|user|>"),  # tokens 59246 and 59253 of generation_config.json
            tasks=_OCR_TASKS,
        ),
    ]


@hookimpl
def engine_kwargs(model: ModelSpec, limits: Limits) -> Mapping[str, Any]:
    # The image processor bounds areas by `size` alone, which has another unit.
    kwargs = limits.model_copy(update={"min_pixels": None, "max_pixels": None}).apply_to(model.engine_kwargs)
    if bounds := limits.pixel_bounds:
        kwargs["mm_processor_kwargs"] = _VISION.model_copy(update=bounds).processor_kwargs()
    return kwargs
