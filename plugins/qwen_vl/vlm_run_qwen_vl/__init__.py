"""Qwen2-VL and Qwen2.5-VL, as published by Qwen.

Nothing here but data: vLLM and transformers know the architectures.
"""

from __future__ import annotations

from vlm_run import DynamicResolution, ModelSpec, hookimpl

_ARCHITECTURES = {
    "2": "Qwen2VLForConditionalGeneration",
    "2.5": "Qwen2_5_VLForConditionalGeneration",
}
# preprocessor_config.json on the hub; vLLM's processor resizes by the same bounds.
_VISION = DynamicResolution(patch_size=14, merge_size=2, min_pixels=3136, max_pixels=12845056)
# added_tokens of the Qwen2 tokenizer, as in tokenizer_config.json of Qwen2-VL-7B-Instruct.
_CONTROL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)


def _spec(
    generation: str, size: str, hidden_size: int, context_length: int, modelscope_owner: str, gpus: int = 1
) -> ModelSpec:
    """The spec of one size.

    Args:
        generation: "2" or "2.5".
        size: As in the hub's name, for example "7B".
        hidden_size: `hidden_size` of config.json.
        context_length: `max_position_embeddings` of config.json.
        modelscope_owner: Whose repository ModelScope has.
        gpus: GPUs of 80 GB that the bf16 weights and some context need.
    """
    name = f"Qwen{generation}-VL-{size}-Instruct"
    return ModelSpec(
        model_type=name.lower().replace("2.5", "2_5"),
        hf_id=f"Qwen/{name}",
        modelscope_id=f"{modelscope_owner}/{name}",
        architecture=_ARCHITECTURES[generation],
        config_match={"hidden_size": hidden_size},
        chat_template="templates/qwen2-vl.jinja",
        image_placeholder="<|vision_start|><|image_pad|><|vision_end|>",
        vision=_VISION,
        context_length=context_length,
        # A whole context of 32,768 tokens leaves room for two pictures of the largest size.
        engine_kwargs={
            "max_model_len": 32768,
            "limit_mm_per_prompt": {"image": 8, "video": 0},
            **({"tensor_parallel_size": gpus} if gpus > 1 else {}),
        },
        control_tokens=_CONTROL_TOKENS,
        stop=("<|im_end|>", "<|endoftext|>"),
        eos_token="<|im_end|>",
    )


@hookimpl
def model_specs() -> list[ModelSpec]:
    return [
        # ModelScope's owner was spelt `qwen` in ms-swift 2.6.1.
        _spec("2", "2B", hidden_size=1536, context_length=32768, modelscope_owner="qwen"),
        _spec("2", "7B", hidden_size=3584, context_length=32768, modelscope_owner="qwen"),
        _spec("2", "72B", hidden_size=8192, context_length=32768, modelscope_owner="qwen", gpus=4),
        # ms-swift 2.x ends before Qwen2.5-VL; the names follow its pattern.
        _spec("2.5", "3B", hidden_size=2048, context_length=128000, modelscope_owner="Qwen"),
        _spec("2.5", "7B", hidden_size=3584, context_length=128000, modelscope_owner="Qwen"),
        _spec("2.5", "72B", hidden_size=8192, context_length=128000, modelscope_owner="Qwen", gpus=4),
    ]
