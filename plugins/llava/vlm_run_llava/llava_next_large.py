"""LLaVA-NeXT on Yi, Llama 3 and Qwen 1.5, with the same image tokens as on Vicuna and Mistral."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlm_run import ModelSpec, VisionFacts

_YI_CONTROL_TOKENS = (
    # Tokens 0 to 2, 6 and 7 of NousResearch/Nous-Hermes-2-Yi-34B, then <image>.
    "<unk>",
    "<|startoftext|>",
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<image>",
)
_LLAMA3_CONTROL_TOKENS = (
    # The tokens of Meta-Llama-3-8B-Instruct that its template uses, then <image>, token 128256.
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<image>",
)
_QWEN_CONTROL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>")  # 151643 to 151646


def specs(vision: VisionFacts, match: Mapping[str, Any]) -> list[ModelSpec]:
    """The four model types.

    Args:
        vision: The vision facts of all LLaVA 1.6 models.
        match: The configuration entries that all LLaVA 1.6 models share.
    """
    return [
        _spec(
            # The names that ms-swift 2.6.1 uses for llava-hf's checkpoints.
            model_type="llava1_6-yi-34b-instruct",
            hf_id="llava-hf/llava-v1.6-34b-hf",
            modelscope_id="swift/llava-v1.6-34b-hf",
            # config.json at 4db0c07, where `max_position_embeddings` is 4096.
            config_match={**match, "text_config.hidden_size": 7168, "text_config.vocab_size": 64064},
            chat_template="templates/llava-1.6-yi.jinja",
            context_length=4096,
            # 35B parameters take 70 GB, which leaves too little memory on one GPU.
            engine_kwargs={"max_model_len": 4096, "tensor_parallel_size": 2},
            control_tokens=_YI_CONTROL_TOKENS,
            stop=("<|im_end|>",),  # eos_token_id 7
            vision=vision,
        ),
        _spec(
            model_type="llama3-llava-next-8b-hf",
            hf_id="llava-hf/llama3-llava-next-8b-hf",
            modelscope_id="swift/llama3-llava-next-8b-hf",
            # config.json as in casperhansen/llama3-llava-next-8b-awq, made from revision 2844b9a.
            config_match={**match, "text_config.model_type": "llama", "text_config.vocab_size": 128320},
            chat_template="templates/llava-next-llama3.jinja",
            context_length=8192,
            engine_kwargs={"max_model_len": 8192},
            control_tokens=_LLAMA3_CONTROL_TOKENS,
            stop=("<|eot_id|>", "<|end_of_text|>"),
            vision=vision,
        ),
        # The size of the feed-forward layers distinguishes the models; both hidden sizes are 8192.
        _qwen("72b", 24576, vision, match),
        _qwen("110b", 49152, vision, match),
    ]


def _qwen(size: str, intermediate_size: int, vision: VisionFacts, match: Mapping[str, Any]) -> ModelSpec:
    return _spec(
        model_type=f"llava-next-{size}-hf",
        hf_id=f"llava-hf/llava-next-{size}-hf",
        modelscope_id=f"AI-ModelScope/llava-next-{size}-hf",
        # config.json as in lurker18/Llava_next_110B_HF_AWQ_4bit; the 72B model uses Qwen/Qwen1.5-72B-Chat.
        config_match={
            **match,
            "text_config.model_type": "qwen2",
            "text_config.intermediate_size": intermediate_size,
        },
        chat_template="templates/llava-next-qwen.jinja",
        context_length=32768,
        # 145 and 223 GB of weights. The 72B model has no grouped-query attention: a full context takes 86 GB.
        engine_kwargs={"max_model_len": 32768, "tensor_parallel_size": 4},
        control_tokens=_QWEN_CONTROL_TOKENS,
        stop=("<|im_end|>", "<|endoftext|>"),  # eos_token_id 151645, and ms-swift's second one
        vision=vision,
    )


def _spec(**fields: Any) -> ModelSpec:
    return ModelSpec(architecture="LlavaNextForConditionalGeneration", image_placeholder="<image>", **fields)
