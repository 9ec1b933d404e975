"""LLaVA-OneVision on Qwen2, llava-hf's `ov` checkpoints: images and videos."""

from __future__ import annotations

from typing import Any

from vlm_run import AnyResolution, ModelSpec, PooledVideo

_TILE = 384
# `image_grid_pinpoints` of config.json of llava-hf/llava-onevision-qwen2-0.5b-ov-hf: 1 to 6 tiles
# in each direction.
_PINPOINTS = tuple((_TILE * rows, _TILE * columns) for rows in range(1, 7) for columns in range(1, 7))

_VISION = AnyResolution(
    downscaled_decode=True,
    # SigLIP so400m. All patches are kept (`vision_feature_select_strategy` is "full").
    image_size=_TILE,
    patch_size=14,
    image_grid_pinpoints=_PINPOINTS,
    # `vision_aspect_ratio` is "anyres_max_9" where config.json omits it. With several images,
    # transformers uses one tile per image; vLLM divides every image into tiles.
    max_tiles=9,
)
# Figure 3 of the report (arXiv 2408.03326): 32 frames of 196 tokens each, 14 × 14 of 27 × 27 patches. The
# token after them is `image_newline`.
_VIDEO = PooledVideo(num_frames=32, image_size=_TILE, patch_size=14, end_tokens=1)


def specs() -> list[ModelSpec]:
    """The three model types."""
    return [_spec("0.5b", 896), _spec("7b", 3584), _spec("72b", 8192, gpus=4)]


def _spec(size: str, hidden_size: int, gpus: int = 1) -> ModelSpec:
    options: dict[str, Any] = {
        "max_model_len": 32768,  # text_config.max_position_embeddings
        # Otherwise vLLM profiles its memory use with a video; --max-videos allows some.
        "limit_mm_per_prompt": {"video": 0},
    }
    if gpus > 1:
        options["tensor_parallel_size"] = gpus
        # config.json of the 72B model, at 2d7e435, names LLaVA-NeXT, which vLLM would then load.
        options["hf_overrides"] = {"architectures": ["LlavaOnevisionForConditionalGeneration"]}
    return ModelSpec(
        # ms-swift 2.6.1 writes a dot in a name as `_` and omits the repository's `-hf`.
        model_type=f"llava-onevision-qwen2-{size.replace('.', '_')}-ov",
        hf_id=f"llava-hf/llava-onevision-qwen2-{size}-ov-hf",
        modelscope_id=f"AI-ModelScope/llava-onevision-qwen2-{size}-ov-hf",
        architecture="LlavaOnevisionForConditionalGeneration",
        config_match={"text_config.hidden_size": hidden_size, "vision_config.image_size": _TILE},
        chat_template="templates/llava-onevision.jinja",
        image_placeholder="<image>",
        vision=_VISION,
        video=_VIDEO,
        video_placeholder="<video>",
        context_length=32768,
        engine_kwargs=options,
        # Tokens 151643 to 151647.
        control_tokens=("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"),
        stop=("<|im_end|>", "<|endoftext|>"),  # eos_token_id 151645, and ms-swift's second one
    )
