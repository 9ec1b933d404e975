"""A small vision-language model trained from scratch, to try and to test vlm-run with."""

from __future__ import annotations

from pathlib import Path

from vlm_run import AnyResolution, ModelSpec, hookimpl

CHECKPOINT = Path(__file__).parent / "checkpoint"
"""The folder of the model: weights, tokenizer, chat template and configuration."""


@hookimpl
def model_specs() -> list[ModelSpec]:
    return [
        ModelSpec(
            model_type="demo-llava",
            checkpoint="checkpoint",
            architecture="LlavaNextForConditionalGeneration",
            # Tells it from LLaVA 1.6, whose tiles are of 336 pixels.
            config_match={"vision_config.image_size": 64, "text_config.vocab_size": 512},
            chat_template="checkpoint/chat_template.jinja",
            image_placeholder="<image>",
            vision=AnyResolution(
                image_size=64,
                patch_size=8,
                image_grid_pinpoints=((64, 128), (128, 64), (128, 128), (192, 64), (64, 192)),
            ),
            context_length=4096,
            max_images=2,  # it was never shown more
            engine_kwargs={
                "max_model_len": 2048,
                "max_num_seqs": 32,
                # Compiling takes longer than a model of this size ever gains.
                "enforce_eager": True,
                # Room for 50 whole contexts. Without it vLLM claims most of the memory there is.
                "kv_cache_memory_bytes": 268435456,
            },
            control_tokens=("<pad>", "<s>", "</s>", "<unk>", "<image>"),
            stop=("</s>",),
        )
    ]
