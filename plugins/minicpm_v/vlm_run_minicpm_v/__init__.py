"""MiniCPM-V 4.6, as OpenBMB publishes it.

Facts without another source are the defaults of `MiniCPMV4_6ImageProcessor` and `MiniCPMV4_6Processor` in
transformers. Repository and prompt: `minicpmv4_6` in ms-swift's swift/model/models/minicpm.py and
swift/template/templates/minicpm.py (3602360), whose `test_minicpmv4_6` compares the prompt with that of the
checkpoint's own template.
"""

from __future__ import annotations

from vlm_run import ModelSpec, hookimpl
from vlm_run_minicpm_v.vision import Slices

vlm_run_contract = ">=1.1,<2"

_REPOSITORY = "openbmb/MiniCPM-V-4.6"


@hookimpl
def model_specs() -> list[ModelSpec]:
    return [
        ModelSpec(
            model_type="minicpm-v-4_6",
            hf_id=_REPOSITORY,
            modelscope_id="OpenBMB/MiniCPM-V-4.6",
            # Xinference's llm_family.json (7ecec16).
            quantized={f"{_REPOSITORY}-AWQ": {}, f"{_REPOSITORY}-GPTQ": {}},
            architecture="MiniCPMV4_6ForConditionalGeneration",
            chat_template="templates/minicpm-v-4.6.jinja",
            image_placeholder="<|image_pad|>",
            vision=Slices(scale_resolution=448, patch_size=14, max_slice_nums=9, downscaled_decode=True),
            context_length=262144,  # models/openbmb/MiniCPM-V-4.6.yaml of vllm-project/recipes (8959cf6)
            # Otherwise vLLM profiles its memory use with a video.
            engine_kwargs={"max_model_len": 32768, "limit_mm_per_prompt": {"video": 0}},
            control_tokens=(
                "<|endoftext|>",
                "<|im_start|>",
                "<|im_end|>",
                "<|image_pad|>",
                "<|video_pad|>",
                "<image>",
                "</image>",
                "<slice>",
                "</slice>",
                "<image_id>",
                "</image_id>",
                "<think>",
                "</think>",
            ),
            stop=("<|im_end|>", "<|endoftext|>"),  # tokens 248046 and 248044: the recipe
        )
    ]
