"""Phi-3-vision and Phi-3.5-vision, as published by Microsoft, without their checkpoints' code."""

from __future__ import annotations

from vlm_run import ModelSpec, hookimpl
from vlm_run_phi3_vision.vision import HDTransform

vlm_run_contract = ">=1,<2"


# added_tokens of tokenizer_config.json that its template or its processor uses.
_CONTROL_TOKENS = (
    "<s>",
    "</s>",
    "<unk>",
    "<|endoftext|>",
    "<|assistant|>",
    "<|system|>",
    "<|end|>",
    "<|user|>",
    "<|image|>",
)


@hookimpl
def model_specs() -> list[ModelSpec]:
    return [
        # An image takes up to 2,653 tokens, or 781 with num_crops=4 in mm_processor_kwargs.
        _spec("phi3-vision-128k-instruct", "Phi-3-vision-128k-instruct", 1.0299999713897705, 16, images=5),
        # Up to 781 tokens per image; Microsoft's model card recommends 16 crops for a single image.
        _spec("phi3_5-vision-instruct", "Phi-3.5-vision-instruct", 1.0800000429153442, 4, images=16),
    ]


def _spec(model_type: str, name: str, long_factor: float, num_crops: int, images: int) -> ModelSpec:
    return ModelSpec(
        model_type=model_type,  # like modelscope_id: ms-swift 2.6.1, supported models
        hf_id=f"microsoft/{name}",
        modelscope_id=f"LLM-Research/{name}",
        architecture="Phi3VForCausalLM",
        # The config.json files differ only in name and RoPE factors, and fine-tunes change the name.
        config_match={"rope_scaling.long_factor.0": long_factor},
        # Both tokenizer_config.json files have the same chat_template.
        chat_template="templates/phi3-vision.jinja",
        image_placeholder="<|image_{index}|>",
        # For the tokenizer the placeholder is plain text; `<|image|>` is token 32044.
        image_token="<|image|>",
        vision=HDTransform(num_crops=num_crops, downscaled_decode=True),  # preprocessor_config.json
        context_length=131072,  # max_position_embeddings of config.json
        # On 80 GB, the KV cache that fits beside the weights holds one sequence of 131,072 tokens.
        engine_kwargs={"max_model_len": 16384, "limit_mm_per_prompt": {"image": images}},
        control_tokens=_CONTROL_TOKENS,
        # eos_token_id of config.json and generation_config.json is 2, but answers do not end with it.
        stop=("<|end|>", "<|endoftext|>"),
        bos_token="<s>",  # written by the tokenizer, not by the template
        eos_token="<|endoftext|>",
    )


@hookimpl
def register_with_vllm() -> None:
    from transformers import AutoConfig, AutoProcessor
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from vllm import ModelRegistry

    from vlm_run_phi3_vision.configuration import Phi3VConfig
    from vlm_run_phi3_vision.processing import Phi3VProcessor

    if "phi3_v" not in CONFIG_MAPPING:
        AutoConfig.register("phi3_v", Phi3VConfig)
    # Replaces the code that the checkpoint's `auto_map` names, for users of transformers.
    AutoProcessor.register(Phi3VConfig, Phi3VProcessor, exist_ok=True)
    # By name, so that the model is imported only in the process that runs it.
    ModelRegistry.register_model("Phi3VForCausalLM", "vlm_run_phi3_vision.model:Phi3VForCausalLM")
