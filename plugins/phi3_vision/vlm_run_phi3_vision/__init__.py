"""Phi-3-vision, as published by Microsoft, without the code that comes with its checkpoint."""

from __future__ import annotations

from vlm_run import ModelSpec, hookimpl
from vlm_run_phi3_vision.vision import HDTransform

vlm_run_contract = ">=1,<2"


@hookimpl
def model_specs() -> list[ModelSpec]:
    return [
        ModelSpec(
            model_type="phi3-vision-128k-instruct",
            hf_id="microsoft/Phi-3-vision-128k-instruct",
            modelscope_id="LLM-Research/Phi-3-vision-128k-instruct",  # ms-swift 2.6.1, supported models
            architecture="Phi3VForCausalLM",
            chat_template="templates/phi3-vision.jinja",
            image_placeholder="<|image_{index}|>",
            # To the tokenizer the placeholder is plain text; `<|image|>` is its token 32044.
            image_token="<|image|>",
            vision=HDTransform(num_crops=16),  # preprocessor_config.json
            context_length=131072,  # max_position_embeddings of config.json
            # Of the 131,072 tokens a KV cache beside the weights on 80 GB would hold one sequence.
            # An image takes up to 2,653 tokens; num_crops 4 in mm_processor_kwargs makes that 781.
            engine_kwargs={"max_model_len": 16384, "limit_mm_per_prompt": {"image": 5}},
            # added_tokens of tokenizer_config.json that its template or its processor uses.
            control_tokens=(
                "<s>",
                "</s>",
                "<unk>",
                "<|endoftext|>",
                "<|assistant|>",
                "<|system|>",
                "<|end|>",
                "<|user|>",
                "<|image|>",
            ),
            stop=("<|end|>", "<|endoftext|>"),
            bos_token="<s>",  # written by the tokenizer, not by the template
            eos_token="<|endoftext|>",
        )
    ]


@hookimpl
def register_with_vllm() -> None:
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from vllm import ModelRegistry

    from vlm_run_phi3_vision.configuration import Phi3VConfig

    if "phi3_v" not in CONFIG_MAPPING:
        AutoConfig.register("phi3_v", Phi3VConfig)
    # By name: the model is imported only where it runs.
    ModelRegistry.register_model("Phi3VForCausalLM", "vlm_run_phi3_vision.model:Phi3VForCausalLM")
