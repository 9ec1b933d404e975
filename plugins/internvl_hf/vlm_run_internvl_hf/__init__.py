"""InternVL3 and InternVL3.5, as OpenGVLab publishes them in transformers' format.

Facts without another source are from transformers' script `convert_internvl_weights_to_hf.py` (015d3b2),
which wrote the published checkpoints. Repositories: `internvl` in ms-swift's
swift/model/models/internlm.py (3602360).
"""

from __future__ import annotations

from typing import Any

from vlm_run import BoxCoordinates, ModelSpec, hookimpl
from vlm_run_internvl_hf.vision import Tiles

vlm_run_contract = ">=1.1,<2"

# `write_image_processor`; the numbers of tiles are transformers' defaults, and `image_seq_length` is that of
# processor_config.json.
_VISION = Tiles(image_size=448, image_seq_length=256, downscaled_decode=True)

_CONTROL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<img>",
    "</img>",
    "<IMG_CONTEXT>",
    "<quad>",
    "</quad>",
    "<ref>",
    "</ref>",
    "<box>",
    "</box>",
)


def _spec(name: str, language_model: dict[str, Any], gpus: int = 1) -> ModelSpec:
    """A spec.

    Args:
        name: The repository's name.
        language_model: Entries of the configuration of the language model that the model card names.
        gpus: How many GPUs with 80 GB the weights in bfloat16 and a context of 32,768 tokens need.
    """
    return ModelSpec(
        model_type=name.lower(),
        hf_id=f"OpenGVLab/{name}",
        modelscope_id=f"OpenGVLab/{name}",
        architecture="InternVLForConditionalGeneration",
        config_match={f"text_config.{key}": value for key, value in language_model.items()},
        chat_template="templates/internvl.jinja",
        image_placeholder="<IMG_CONTEXT>",
        vision=_VISION,
        # InternVL's documentation: Chat Data Format, Grounding / Detection Data.
        box_coordinates=BoxCoordinates(maximum=1000),
        context_length=32768 if language_model["model_type"] == "qwen2" else 40960,  # max_position_embeddings
        engine_kwargs={
            "max_model_len": 32768,
            # Otherwise vLLM profiles its memory use with a video.
            "limit_mm_per_prompt": {"video": 0},
            **({"tensor_parallel_size": gpus} if gpus > 1 else {}),
        },
        control_tokens=_CONTROL_TOKENS,
        stop=("<|im_end|>",),  # token 151645
    )


def _qwen2(hidden_size: int, layers: int) -> dict[str, Any]:
    return {"model_type": "qwen2", "hidden_size": hidden_size, "num_hidden_layers": layers}


def _qwen3(hidden_size: int, layers: int, model_type: str = "qwen3") -> dict[str, Any]:
    return {"model_type": model_type, "hidden_size": hidden_size, "num_hidden_layers": layers}


@hookimpl
def model_specs() -> list[ModelSpec]:
    return [
        # On Qwen2.5 with 0.5B, 1.5B, 7B, 14B, 32B and 72B.
        _spec("InternVL3-1B-hf", _qwen2(896, 24)),
        _spec("InternVL3-2B-hf", _qwen2(1536, 28)),
        _spec("InternVL3-8B-hf", _qwen2(3584, 28)),
        _spec("InternVL3-14B-hf", _qwen2(5120, 48)),
        # 77 GB of weights.
        _spec("InternVL3-38B-hf", _qwen2(5120, 64), gpus=2),
        # 157 GB of weights.
        _spec("InternVL3-78B-hf", _qwen2(8192, 80), gpus=4),
        # On Qwen3 with 0.6B, 1.7B, 4B, 8B, 14B, 32B and 30B-A3B.
        _spec("InternVL3_5-1B-HF", _qwen3(1024, 28)),
        _spec("InternVL3_5-2B-HF", _qwen3(2048, 28)),
        _spec("InternVL3_5-4B-HF", _qwen3(2560, 36)),
        _spec("InternVL3_5-8B-HF", _qwen3(4096, 36)),
        _spec("InternVL3_5-14B-HF", _qwen3(5120, 40)),
        _spec("InternVL3_5-38B-HF", _qwen3(5120, 64), gpus=2),
        # 62 GB of weights, and 3 GB for a context.
        _spec("InternVL3_5-30B-A3B-HF", _qwen3(2048, 48, "qwen3_moe")),
    ]
