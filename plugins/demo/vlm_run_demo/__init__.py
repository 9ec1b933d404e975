"""demo-llava: a small LLaVA-NeXT model, trained from scratch, whose weights come with the plugin."""

from __future__ import annotations

from vlm_run import AnyResolution, ModelSpec, hookimpl


@hookimpl
def model_specs() -> list[ModelSpec]:
    return [
        ModelSpec(
            model_type="demo-llava",
            checkpoint="checkpoint",
            architecture="LlavaNextForConditionalGeneration",
            config_match={"text_config.model_type": "mistral", "text_config.hidden_size": 192},
            chat_template="chat_template.jinja",  # LLaVA-1.6-mistral's
            image_placeholder="<image>",
            vision=AnyResolution(
                image_size=64,
                patch_size=8,
                image_grid_pinpoints=((64, 128), (128, 64), (128, 128), (192, 64), (64, 192)),
            ),
            context_length=4096,
            max_images=2,
            # Of one image, at most 64 + 16 × 16 + 16 = 336 tokens.
            engine_kwargs={"max_model_len": 2048, "max_num_seqs": 32},
            control_tokens=("<pad>", "<s>", "</s>", "<unk>", "<image>"),
            stop=("</s>",),
            bos_token="<s>",
            eos_token="</s>",
        )
    ]
