"""LLaVA-NeXT-Video on Vicuna. vLLM serves it with one video a request and without images."""

from __future__ import annotations

from vlm_run import ModelSpec, PooledVideo

# 24 × 24 patches of CLIP ViT-L/14 at 336 pixels, pooled by `spatial_pool_stride` 2 of config.json. "The
# videos were sampled uniformly to be 32 frames per clip": the model card.
_VIDEO = PooledVideo(num_frames=32, image_size=336, patch_size=14, crops=True)


def specs() -> list[ModelSpec]:
    """The model type; LLaVA-NeXT-Video-7B-DPO-hf differs in its weights alone."""
    return [
        ModelSpec(
            # The names that ms-swift 2.6.1 uses for llava-hf's checkpoint.
            model_type="llava-next-video-7b-instruct",
            hf_id="llava-hf/LLaVA-NeXT-Video-7B-hf",
            modelscope_id="swift/LLaVA-NeXT-Video-7B-hf",
            architecture="LlavaNextVideoForConditionalGeneration",
            config_match={"text_config.model_type": "llama", "text_config.vocab_size": 32064},
            chat_template="templates/llava-1.5.jinja",
            image_placeholder="<image>",
            max_images=0,  # `LlavaNextVideoProcessingInfo` of vLLM knows videos alone
            video=_VIDEO,
            video_placeholder="<video>",
            # text_config: `max_position_embeddings` 4096, and `rope_scaling` with factor 2.5.
            context_length=10240,
            engine_kwargs={"max_model_len": 10240, "limit_mm_per_prompt": {"video": 1}},
            # Llama's special tokens, then 32000 and 32001 (`video_token_index` and `image_token_index`).
            control_tokens=("<unk>", "<s>", "</s>", "<video>", "<image>"),
            stop=("</s>",),
        )
    ]
