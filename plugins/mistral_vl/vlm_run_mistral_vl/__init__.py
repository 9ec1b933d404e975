"""Pixtral and Mistral Small 3.1 and 3.2, as Mistral AI publishes them.

They are in Mistral's own format and have its own tokenizer, as vLLM serves them by default. Prompts are those
of mistral-common, whose `convert_tokenizer_to_chat_template` writes a template for a tokenizer's version.
Repositories: `mistral3` and `mistral3_2506` in ms-swift's swift/model/models/mistral.py (3602360).
"""

from __future__ import annotations

from typing import Any

from vlm_run import ModelSpec, hookimpl
from vlm_run_mistral_vl.vision import Rows

vlm_run_contract = ">=1.1,<2"

# Names of special tokens in mistral-common's `Tekkenizer`.
_CONTROL_TOKENS = (
    "<unk>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[TOOL_CALLS]",
    "[IMG]",
    "<pad>",
    "[IMG_BREAK]",
    "[IMG_END]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "[TOOL_CONTENT]",
)

# `image_size`, `patch_size` and `spatial_merge_size` of transformers' Mistral3Config, whose defaults are
# those of Mistral-Small-3.1-24B-Instruct-2503. Context length: issue 15212 of vllm-project/vllm.
_SMALL = Rows(image_patch_size=14, max_image_size=1540, spatial_merge_size=2)


def _spec(name: str, **differs: Any) -> ModelSpec:
    return ModelSpec(
        model_type=name.lower().replace(".", "_"),
        hf_id=f"mistralai/{name}",
        architecture="PixtralForConditionalGeneration",
        vllm=">=0.32,<0.34",  # the interface of processors that `vllm_model` uses
        image_placeholder="[IMG]",
        control_tokens=_CONTROL_TOKENS,
        stop=("</s>",),
        bos_token="<s>",
        eos_token="</s>",
        **differs,
    )


def _options(max_model_len: int) -> dict[str, Any]:
    """Engine options, as in vLLM's recipes for Mistral's models."""
    formats = {name: "mistral" for name in ("tokenizer_mode", "config_format", "load_format")}
    return {**formats, "max_model_len": max_model_len}


@hookimpl
def model_specs() -> list[ModelSpec]:
    return [
        _spec(
            "Pixtral-12B-2409",
            chat_template="templates/mistral-v3.jinja",
            # `image` of tekken_240911.json, which mistral-common's `from_model` gives for this model.
            vision=Rows(image_patch_size=16, max_image_size=1024),
            context_length=131072,
            engine_kwargs=_options(32768),
        ),
        *(
            _spec(
                name,
                modelscope_id=f"mistralai/{name}",
                chat_template="templates/mistral-v7.jinja",
                vision=_SMALL,
                context_length=131072,
                # 48 GB of weights.
                engine_kwargs=_options(32768),
            )
            for name in ("Mistral-Small-3.1-24B-Instruct-2503", "Mistral-Small-3.2-24B-Instruct-2506")
        ),
    ]


@hookimpl
def register_with_vllm() -> None:
    from vllm import ModelRegistry

    # By name: the model is imported only where it runs.
    ModelRegistry.register_model(
        "PixtralForConditionalGeneration", "vlm_run_mistral_vl.vllm_model:PixtralForConditionalGeneration"
    )
