"""DeepSeek-OCR, as DeepSeek publishes it.

Prompts, tasks and image sizes: DeepSeek-OCR-master/DeepSeek-OCR-vllm/config.py of deepseek-ai/DeepSeek-OCR
(e4ac34e), mode "Gundam", which is vLLM's too. Engine options and sampling parameters: vLLM's recipe,
DeepSeek/DeepSeek-OCR.md of vllm-project/recipes (8959cf6), as in that repository's README.
"""

from __future__ import annotations

from vlm_run import BoxCoordinates, ModelSpec, hookimpl
from vlm_run_deepseek_ocr.vision import GlobalAndLocalViews

vlm_run_contract = ">=1.3,<2"

# Without "Locate <|ref|>xxxx<|/ref|> in the image.", which needs the name of what is to be found.
_TASKS = {
    "ocr": "Free OCR.",
    "markdown": "<|grounding|>Convert the document to markdown.",
    "layout": "<|grounding|>OCR this image.",
    "figure": "Parse the figure.",
    "describe": "Describe this image in detail.",
}

# No sequence of 30 tokens twice within 90, but for the tags of table cells, "<td>" and "</td>".
_NO_REPETITION = {"ngram_size": 30, "window_size": 90, "whitelist_token_ids": [128821, 128822]}


@hookimpl
def model_specs() -> list[ModelSpec]:
    return [
        ModelSpec(
            model_type="deepseek-ocr",
            hf_id="deepseek-ai/DeepSeek-OCR",
            modelscope_id="deepseek-ai/DeepSeek-OCR",  # ms-swift's swift/model/models/deepseek.py (3602360)
            architecture="DeepseekOCRForCausalLM",
            chat_template="templates/deepseek-ocr.jinja",
            image_placeholder="<image>",
            vision=GlobalAndLocalViews(base_size=1024, image_size=640, max_crops=6, downscaled_decode=True),
            # run_dpsk_ocr_image.py divides by 999.
            box_coordinates=BoxCoordinates(maximum=999),
            context_length=8192,
            engine_kwargs={
                "logits_processors": ["vllm.model_executor.models.deepseek_ocr:NGramPerReqLogitsProcessor"],
            },
            # The tags of boxes and of table cells are special tokens, and part of the answer.
            sampling_params={"skip_special_tokens": False, "extra_args": _NO_REPETITION},
            tasks=_TASKS,
            control_tokens=(
                "<｜begin▁of▁sentence｜>",
                "<｜end▁of▁sentence｜>",
                "<｜▁pad▁｜>",
                "<image>",
                "<|grounding|>",
                "<|ref|>",
                "<|/ref|>",
                "<|det|>",
                "<|/det|>",
            ),
            stop=("<｜end▁of▁sentence｜>",),
            bos_token="<｜begin▁of▁sentence｜>",
        )
    ]
