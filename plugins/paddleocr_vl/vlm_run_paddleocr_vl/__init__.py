"""PaddleOCR-VL, as PaddlePaddle publishes it.

Facts without another source are from preprocessor_config.json and tokenizer_config.json of the repositories.
"""

from __future__ import annotations

from typing import Any

from vlm_run import ModelSpec, hookimpl
from vlm_run_paddleocr_vl.vision import EnlargedToOneToken

vlm_run_contract = ">=1.1,<2"

# `TASKS` in vLLM's recipe: https://docs.vllm.ai/projects/recipes/en/latest/PaddlePaddle/PaddleOCR-VL.html
_TASKS = {
    "ocr": "OCR:",
    "table": "Table Recognition:",
    "formula": "Formula Recognition:",
    "chart": "Chart Recognition:",
}
# `PROMPTS` in the model card: https://huggingface.co/PaddlePaddle/PaddleOCR-VL-1.6
_TASKS_1_5 = {**_TASKS, "seal": "Seal Recognition:", "spotting": "Spotting:"}

_CONTROL_TOKENS = (
    "<unk>",
    "<s>",
    "</s>",
    "<|begin_of_sentence|>",
    "<|end_of_sentence|>",
    "<|IMAGE_START|>",
    "<|IMAGE_PLACEHOLDER|>",
    "<|IMAGE_END|>",
)


def _spec(name: str, min_pixels: int, max_pixels: int, **differs: Any) -> ModelSpec:
    return ModelSpec(
        model_type=name.lower().replace(".", "_"),
        hf_id=f"PaddlePaddle/{name}",
        modelscope_id=f"PaddlePaddle/{name}",  # ms-swift's swift/model/models/baidu.py (3602360)
        architecture="PaddleOCRVLForConditionalGeneration",
        image_placeholder="<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>",
        vision=EnlargedToOneToken(
            patch_size=14,
            merge_size=2,
            min_pixels=min_pixels,
            max_pixels=max_pixels,
            downscaled_decode=True,
        ),
        context_length=131072,  # default of `max_position_embeddings` in transformers' PaddleOCRTextConfig
        engine_kwargs={"max_model_len": 16384},  # room for the largest image and a page of text
        control_tokens=_CONTROL_TOKENS,
        stop=("</s>",),  # token 2, `eos_token_id` of generation_config.json
        eos_token="</s>",
        **differs,
    )


@hookimpl
def model_specs() -> list[ModelSpec]:
    return [
        # preprocessor_config.json; https://huggingface.co/PaddlePaddle/PaddleOCR-VL
        _spec(
            "PaddleOCR-VL",
            min_pixels=147384,
            max_pixels=2822400,
            chat_template="templates/paddleocr-vl.jinja",
            template_match='"Assistant: "',
            tasks=_TASKS,
        ),
        # preprocessor_config.json of 1.6, which is that of 1.5.
        _spec(
            "PaddleOCR-VL-1.6",
            min_pixels=112896,
            max_pixels=1003520,
            chat_template="templates/paddleocr-vl-1.5.jinja",
            template_match=r'"Assistant:\n"',
            tasks=_TASKS_1_5,
        ),
    ]
