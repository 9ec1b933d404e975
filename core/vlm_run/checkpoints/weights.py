"""The size of a checkpoint's weights and of its KV cache, from its files, without a model library."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm_run.checkpoints.files import read_json

BYTES_OF = {
    "float64": 8, "float32": 4, "float": 4, "float16": 2, "half": 2, "bfloat16": 2, "auto": 2,
    "fp8": 1, "fp8_e4m3": 1, "fp8_e5m2": 1, "int8": 1,
}  # fmt: skip
"""Bytes of a value by vLLM's and torch's names of dtypes. vLLM's `auto` is never wider than two bytes."""

_TEXT_CONFIGS = ("text_config", "llm_config", "language_config", "thinker_config")
_FLOATS = {"F64": 8, "F32": 4}  # what vLLM converts to the engine's dtype, by the names of safetensors
_LARGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors library
# Values that config.json leaves out, by its model_type: the defaults of transformers' configuration classes
# (configuration_gemma2.py, configuration_gemma3.py, configuration_cohere2.py).
_GEMMA3 = {
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 262208,
    "tie_word_embeddings": True, "sliding_window": 4096, "sliding_window_pattern": 6,
}  # fmt: skip
_DEFAULTS: dict[str, dict[str, Any]] = {
    "gemma2": {"sliding_window_pattern": 2},
    "gemma3_text": _GEMMA3,
    "cohere2": {"sliding_window_pattern": 4},
}
_FULL = {"full_attention", "attention"}
_WINDOWED = {"sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}
_STATE = {"linear_attention", "mamba", "mamba2", "recurrent", "conv"}
# Dimensions of openai/clip-vit-large-patch14-336, which Phi-3-vision's config.json names instead of them.
_CLIP_LARGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "patch_size": 14}


@dataclass(frozen=True, slots=True)
class Weights:
    """The size of the weights.

    Attributes:
        size: Bytes of all weights in the dtype in which the engine holds them.
        source: The source of the number, for display.
    """

    size: int
    source: str


@dataclass(frozen=True, slots=True)
class KVCache:
    """The size of the KV cache of one request.

    Attributes:
        token: Bytes of one token in all layers with full attention.
        windowed_token: Bytes of one token in all layers with sliding-window or chunked attention.
        window: Tokens that those layers attend to.
        heads: KV heads among which tensor parallelism divides the cache; 1 for latent attention (MLA),
            whose cache each GPU has whole.
        other_layers: Number of layers with another kind of state, which is small and does not grow with
            the context (linear attention, Mamba).
        unknown: Kinds of layers that are not known, and are counted as full attention.
    """

    token: int
    windowed_token: int = 0
    window: int = 0
    heads: int = 1
    other_layers: int = 0
    unknown: tuple[str, ...] = ()

    def request(self, tokens: int, step: int = 1) -> int:
        """Bytes that vLLM reserves for a request.

        Args:
            tokens: The length of the request.
            step: `max_num_batched_tokens`: a layer with a window keeps the tokens of one step beside those
                before it (`SlidingWindowSpec.max_memory_usage_bytes` in vllm/v1/kv_cache_interface.py).
        """
        return self.token * tokens + self.windowed_token * min(tokens, self.window - 1 + step)


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration of the language model, which is nested in that of most vision-language models.

    It has the defaults of transformers for families whose `config.json` leaves dimensions out.
    """
    for name in _TEXT_CONFIGS:
        nested = config.get(name)
        if isinstance(nested, Mapping):
            return text_config(nested)
    return {**_DEFAULTS.get(str(config.get("model_type")), {}), **config}


def read_weights(directory: Path, config: Mapping[str, Any], dtype: str = "auto") -> Weights | None:
    """The size of the weights, from the safetensors files or their index, else from the dimensions.

    Args:
        directory: The checkpoint directory.
        config: Its `config.json`.
        dtype: The engine's dtype; quantized weights keep their own.

    Raises:
        ValueError: A file is damaged.
    """
    bytes_each = BYTES_OF.get(dtype, 2)
    files = sorted(directory.glob("*.safetensors"))
    index = read_json(directory / "model.safetensors.index.json")
    indexed = set(index.get("weight_map", {}).values())
    missing = indexed - {file.name for file in files}
    if indexed:  # Mistral's repositories hold the weights a second time, as vLLM's loader knows
        files = [file for file in files if file.name in indexed]
    if files and not missing:
        return Weights(sum(_size(file, bytes_each) for file in files), "safetensors files")
    total = index.get("metadata", {}).get("total_size")
    if isinstance(total, int):
        stored = BYTES_OF.get(str(_dtype(config)), 2)
        if "quantization_config" not in config:
            total = total * bytes_each // stored
        return Weights(total, "model.safetensors.index.json")
    if files:
        raise ValueError(f"{directory} has no complete weights: {min(missing)} is missing")
    parameters = count_parameters(config)
    if parameters is None:
        return None
    return Weights(parameters * bytes_each, "estimated from the dimensions in config.json")


def read_kv_cache(config: Mapping[str, Any], dtype: str = "auto") -> KVCache | None:
    """The size of the KV cache; None if the configuration does not say.

    Args:
        config: `config.json`.
        dtype: vLLM's `kv_cache_dtype`; `auto` is the engine's dtype.
    """
    text = text_config(config)
    value = BYTES_OF.get(dtype, 2)
    layers = text.get("num_hidden_layers")
    if not isinstance(layers, int):
        return None
    if isinstance(rank := text.get("kv_lora_rank"), int):
        return KVCache(layers * (rank + int(text.get("qk_rope_head_dim") or 0)) * value)
    heads = text.get("num_attention_heads")
    hidden = text.get("hidden_size")
    if not isinstance(heads, int) or not isinstance(hidden, int):
        return None
    kv_heads = int(text.get("num_key_value_heads") or heads)
    layer = 2 * kv_heads * int(text.get("head_dim") or hidden // heads) * value
    kinds = _layer_kinds(text, layers)
    windowed = [kind for kind in kinds if kind in _WINDOWED]
    state = [kind for kind in kinds if kind in _STATE]
    unknown = sorted({*kinds} - {*_FULL, *_WINDOWED, *_STATE})
    window = max((int(text.get(_WINDOWED[kind]) or 0) for kind in windowed), default=0)
    if windowed and not window:  # how much they keep is not known
        unknown, windowed = sorted({*unknown, *windowed}), []
    return KVCache(
        token=(layers - len(windowed) - len(state)) * layer,
        windowed_token=len(windowed) * layer,
        window=window,
        heads=kv_heads,
        other_layers=len(state),
        unknown=tuple(unknown),
    )


def count_parameters(config: Mapping[str, Any]) -> int | None:
    """The number of parameters by the usual shapes of a decoder and a vision encoder.

    Linear layers and embeddings alone; norms, biases and what a family adds are within 2 %.
    None if a dimension is missing.

    >>> mistral = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32}
    >>> heads = {"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000}
    >>> count_parameters(mistral | heads)
    7241465856
    """
    text = text_config(config)
    try:
        hidden, layers = text["hidden_size"], text["num_hidden_layers"]
        heads, vocabulary = text["num_attention_heads"], text["vocab_size"]
        head = text.get("head_dim") or hidden // heads
        attention = 2 * hidden * head * (heads + (text.get("num_key_value_heads") or heads))
        decoder = layers * attention + sum(_mlp(text, hidden, layer) for layer in range(layers))
        tied = text.get("tie_word_embeddings", config.get("tie_word_embeddings", False))
        return int(decoder + vocabulary * hidden * (1 if tied else 2) + _vision(config, hidden))
    except (KeyError, TypeError):
        return None


def vision_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration of the vision encoder; an empty one if there is none."""
    found = config.get("vision_config")
    if isinstance(found, Mapping):
        return found
    named = config.get("img_processor")
    if isinstance(named, Mapping) and "clip-vit-large-patch14-336" in str(named.get("model_name")):
        return _CLIP_LARGE
    return {}


def vision_sizes(vision: Mapping[str, Any]) -> tuple[int, int, int]:
    """Hidden size, intermediate size and number of layers of a vision encoder; zeros for an empty one."""
    # Qwen2-VL's `hidden_size` is that of the language model.
    hidden = int(vision.get("embed_dim") or vision.get("hidden_size") or 0)
    intermediate = int(vision.get("intermediate_size") or (vision.get("mlp_ratio") or 4) * hidden)
    return hidden, intermediate, int(vision.get("depth") or vision.get("num_hidden_layers") or 0)


def _vision(config: Mapping[str, Any], text_hidden: int) -> int:
    vision = vision_config(config)
    hidden, intermediate, layers = vision_sizes(vision)
    if not hidden:
        return 0
    matrices = 3 if vision.get("hidden_act") in ("silu", "swiglu") else 2
    encoder = layers * (4 * hidden * hidden + matrices * hidden * intermediate)
    merged = hidden * int(vision.get("spatial_merge_size") or 1) ** 2
    projector = merged * text_hidden + text_hidden**2
    if merged > hidden:  # a merger has another layer before
        projector += merged**2
    return encoder + projector


def _mlp(text: Mapping[str, Any], hidden: int, layer: int) -> int:
    experts = text.get("num_experts") or text.get("n_routed_experts") or text.get("num_local_experts")
    if not experts or layer < (text.get("first_k_dense_replace") or 0):
        return 3 * hidden * int(text["intermediate_size"])
    each = 3 * hidden * int(text.get("moe_intermediate_size") or text["intermediate_size"])
    shared = (text.get("n_shared_experts") or 0) * each
    shared += 3 * hidden * int(text.get("shared_expert_intermediate_size") or 0)
    return int(experts) * (each + hidden) + shared


def _layer_kinds(text: Mapping[str, Any], layers: int) -> list[str]:
    """The kind of each layer, in the words of `layer_types`."""
    for name in ("layer_types", "layers_block_type"):
        kinds = text.get(name)
        if isinstance(kinds, list) and len(kinds) == layers:
            return [str(kind) for kind in kinds]
    if interval := text.get("full_attention_interval"):  # Qwen3-Next
        return [_every(interval, layer, "linear_attention") for layer in range(layers)]
    if not text.get("sliding_window") or not text.get("use_sliding_window", True):
        return ["full_attention"] * layers
    if pattern := text.get("sliding_window_pattern") or text.get("_sliding_window_pattern"):
        return [_every(pattern, layer, "sliding_attention") for layer in range(layers)]
    # Qwen2 writes both; its first layers have full attention.
    full = min(layers, int(text.get("max_window_layers") or 0)) if "use_sliding_window" in text else 0
    return ["full_attention"] * full + ["sliding_attention"] * (layers - full)


def _every(interval: int, layer: int, others: str) -> str:
    return others if (layer + 1) % interval else "full_attention"


def _dtype(config: Mapping[str, Any]) -> Any:
    text = text_config(config)
    names = (config.get("dtype"), config.get("torch_dtype"), text.get("dtype"), text.get("torch_dtype"))
    return next(filter(None, names), None)


def _size(file: Path, bytes_each: int) -> int:
    """Bytes of a safetensors file's tensors as the engine holds them."""
    return sum(
        math.prod(tensor["shape"]) * bytes_each
        if tensor["dtype"] in _FLOATS or (tensor["dtype"] in ("F16", "BF16") and bytes_each > 2)
        else tensor["data_offsets"][1] - tensor["data_offsets"][0]
        for tensor in _tensors(file)
    )


def _tensors(file: Path) -> Iterator[dict[str, Any]]:
    """The entries of a safetensors file's header (https://huggingface.co/docs/safetensors)."""
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if length > _LARGEST_HEADER:
                raise ValueError("its header is too long")
            header = json.loads(opened.read(length))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} is not a safetensors file: {error}") from None
    yield from (entry for name, entry in header.items() if name != "__metadata__")
