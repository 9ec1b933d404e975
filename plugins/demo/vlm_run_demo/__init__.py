"""Two small vision-language models, for trying and testing vlm-run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlm_run import AnyResolution, BoxCoordinates, DynamicResolution, DynamicVideo, ModelSpec, hookimpl

vlm_run_contract = ">=1.2,<2"

CHECKPOINT = Path(__file__).parent / "checkpoint"
"""Checkpoint directory of demo-llava: weights, tokenizer, chat template and configuration."""
QWEN_CHECKPOINT = Path(__file__).parent / "checkpoint_qwen"
"""Checkpoint directory of demo-qwen."""

IN_ONE_PROCESS = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
"""`distributed_executor_backend` with the model in the engine's own process.

On a CPU vLLM starts one more, which takes ten seconds.
"""
_ENGINE = {
    "max_model_len": 2048,
    "max_num_seqs": 32,
    # Compilation takes longer than it could ever save for a model of this size.
    "enforce_eager": True,
    # Room for 50 full contexts. Otherwise vLLM reserves most of the machine's memory.
    "kv_cache_memory_bytes": 268435456,
    "distributed_executor_backend": IN_ONE_PROCESS,
}


def _spec(directory: Path, **differs: Any) -> ModelSpec:
    """A spec with the fields that both models share."""
    return ModelSpec(
        checkpoint=directory.name,
        chat_template=f"{directory.name}/chat_template.jinja",
        context_length=4096,
        max_images=2,  # they were never trained on more
        tasks={
            "count": "How many shapes are there?"
        },  # `_count_turn` in questions.py, of which they saw many
        **differs,
    )


@hookimpl
def model_specs() -> list[ModelSpec]:
    return [
        _spec(
            CHECKPOINT,
            model_type="demo-llava",
            architecture="LlavaNextForConditionalGeneration",
            # Distinguishes it from LLaVA 1.6, whose tiles have 336 pixels.
            config_match={"vision_config.image_size": 64, "text_config.vocab_size": 512},
            image_placeholder="<image>",
            vision=AnyResolution(
                downscaled_decode=True,
                image_size=64,
                patch_size=8,
                image_grid_pinpoints=((64, 128), (128, 64), (128, 128), (192, 64), (64, 192)),
            ),
            engine_kwargs=_ENGINE,
            control_tokens=("<pad>", "<s>", "</s>", "<unk>", "<image>"),
            stop=("</s>",),
        ),
        _spec(
            QWEN_CHECKPOINT,
            model_type="demo-qwen",
            architecture="Qwen2VLForConditionalGeneration",
            # Distinguishes it from Qwen2-VL, whose smallest hidden size is 1536.
            config_match={"text_config.hidden_size": 256, "text_config.vocab_size": 512},
            image_placeholder="<|vision_start|><|image_pad|><|vision_end|>",
            vision=DynamicResolution(
                patch_size=8, merge_size=2, min_pixels=4096, max_pixels=11264, downscaled_decode=True
            ),
            # Frames have the size of images, and 32 of them leave room in the context for a second video.
            video=DynamicVideo(
                max_frames=32,
                patch_size=8,
                merge_size=2,
                min_pixels=4096,
                max_pixels=11264,
                total_pixels=16 * 11264,
            ),
            video_placeholder="<|vision_start|><|video_pad|><|vision_end|>",
            # As `box_answer` in boxes.py writes them, which is as Qwen2-VL does.
            box_coordinates=BoxCoordinates(maximum=1000),
            # Otherwise vLLM profiles its memory use with a video; --max-videos allows some.
            engine_kwargs={**_ENGINE, "limit_mm_per_prompt": {"video": 0}},
            control_tokens=(
                "<|endoftext|>",
                "<|im_start|>",
                "<|im_end|>",
                "<|vision_start|>",
                "<|vision_end|>",
                "<|image_pad|>",
                "<|video_pad|>",
                "<|object_ref_start|>",
                "<|object_ref_end|>",
                "<|box_start|>",
                "<|box_end|>",
            ),
            stop=("<|im_end|>", "<|endoftext|>"),
        ),
    ]
