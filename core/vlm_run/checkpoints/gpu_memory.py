"""Whether a model fits on a GPU: its weights, its activations, and how many requests its KV cache holds.

The arithmetic follows vLLM's own start: of `gpu_memory_utilization` times the memory of each GPU, what the
weights and the largest step do not take is KV cache. docs/gpu-memory.md compares it with what vLLM reports.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vlm_run.checkpoints.weights import (
    BYTES_OF,
    KVCache,
    Weights,
    read_kv_cache,
    read_weights,
    text_config,
    vision_config,
    vision_sizes,
)

GIB = 2**30
MIB_OF = {
    "t4": 15360,
    "a10g": 23028,
    "l4": 23034,
    "rtx4090": 24564,
    "rtx3090": 24576,
    "a100-40gb": 40960,
    "l40s": 46068,
    "h100": 81559,
    "a100-80gb": 81920,
    "h200": 143771,
}
"""Memory of GPUs in MiB, as `nvidia-smi` reports it."""

_UTILIZATION = 0.92  # vLLM's default (vllm/config/cache.py, 0.24 to 0.33)
_LARGE = 70 * GIB  # from which vLLM has larger defaults, but for the A100 (EngineArgs.get_batch_defaults)
# CUDA context, libraries and workspaces: what vLLM 0.24.0 took on one H200 beyond the weights and the
# activations computed here, for three models 1.0 to 1.2 GiB (docs/gpu-memory.md).
_OVERHEAD = int(1.1 * GIB)
_SHORTEST_CONTEXT = 1024
_STEP = 256
_COUNTS = (
    "tensor_parallel_size",
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "kv_cache_memory_bytes",
)


@dataclass(frozen=True, slots=True)
class Gpu:
    """GPUs of one kind.

    Attributes:
        name: As the user gave it.
        memory: Bytes of each.
        count: How many hold the model together, by tensor parallelism.
    """

    name: str
    memory: int
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Gpu:
        """Parse `24` (GiB), `h100`, `h100x2` or `24x2`.

        >>> Gpu.parse("24x2").count, Gpu.parse("RTX4090").memory // 2**20
        (2, 24564)

        Raises:
            ValueError: The GPU is not known.
        """
        name = text.strip().lower().replace("gib", "").replace(" ", "")
        for kind, count in ((name, "1"), *(re.findall(r"^(.+)x(\d+)$", name))):
            if kind in MIB_OF and int(count):
                return cls(text, MIB_OF[kind] * 2**20, int(count))
            if re.fullmatch(r"\d{1,4}(\.\d+)?", kind) and float(kind) and int(count):
                return cls(text, int(float(kind) * GIB), int(count))
        raise ValueError(
            f"{text!r} is neither a size in GiB, such as 24, nor a GPU that vlm-run knows: "
            f"{', '.join(MIB_OF)}; add x2 for two"
        )


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """The memory that a model takes on each GPU, in bytes.

    Attributes:
        gpu: The GPUs.
        budget: What vLLM may use: `gpu_memory_utilization` of the memory, unless the KV cache is stated.
        weights: The weights.
        weights_from: The source of the size of the weights, for display.
        activations: The largest step, text or images, and the logits.
        overhead: CUDA context, libraries and workspaces.
        kv_cache: What is left; negative if the rest does not fit.
        request: KV cache of one request of `max_model_len` tokens.
        max_model_len: The context length that was assumed.
        kv_cache_tokens: Tokens that the KV cache holds, in requests of that length.
        options: Options each of which alone makes the model fit, for display; empty if it fits.
        notes: What could not be determined.
    """

    gpu: Gpu
    budget: int
    weights: int
    weights_from: str
    activations: int
    overhead: int
    kv_cache: int
    request: int
    max_model_len: int
    kv_cache_tokens: int
    options: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether vLLM would start: the KV cache holds a request of `max_model_len` tokens."""
        return self.kv_cache >= self.request

    @property
    def requests(self) -> float:
        """How many requests of `max_model_len` tokens the KV cache holds at once."""
        return max(self.kv_cache, 0) / self.request

    def to_dict(self) -> dict[str, Any]:
        """The estimate as JSON-compatible data, in bytes."""
        return {
            "gpu": self.gpu.name,
            "gpus": self.gpu.count,
            "gpu_bytes": self.gpu.memory,
            "fits": self.fits,
            "budget_bytes": self.budget,
            "weights_bytes": self.weights,
            "weights_from": self.weights_from,
            "activations_bytes": self.activations,
            "overhead_bytes": self.overhead,
            "kv_cache_bytes": self.kv_cache,
            "kv_cache_tokens": self.kv_cache_tokens,
            "kv_cache_bytes_per_request": self.request,
            "max_model_len": self.max_model_len,
            "requests_at_once": round(self.requests, 2),
            "options": list(self.options),
        }


@dataclass(frozen=True, slots=True)
class _Model:
    config: Mapping[str, Any]
    weights: Weights
    kv_cache: KVCache


def estimate_memory(
    directory: Path,
    config: Mapping[str, Any],
    gpu: Gpu,
    engine_kwargs: Mapping[str, Any],
    *,
    context_length: int,
    served: bool = False,
) -> MemoryEstimate:
    """Estimate what a checkpoint takes of each GPU.

    Args:
        directory: The checkpoint directory, of which the safetensors files or their index are read.
        config: Its `config.json`.
        gpu: The GPUs.
        engine_kwargs: The engine options that decide: dtype, kv_cache_dtype, gpu_memory_utilization,
            tensor_parallel_size, max_model_len, max_num_seqs, max_num_batched_tokens,
            kv_cache_memory_bytes.
        context_length: The context length if max_model_len is not set.
        served: Whether vLLM's defaults for servers apply, rather than those for batches.

    Raises:
        ValueError: The configuration lacks a dimension, or a file is damaged.
    """
    model = _read(directory, config, engine_kwargs)
    given = {"tensor_parallel_size": gpu.count, "max_model_len": context_length}
    given |= {name: value for name, value in engine_kwargs.items() if value is not None}
    _check(given)
    now = _estimate(model, gpu, given, served)
    if now.fits:
        return now
    fitting = []
    for words, changed, options in _changes(model, gpu, given, served):
        if _estimate(changed, gpu, options, served).fits:
            fitting.append(words)
            if "tensor_parallel_size" in words:
                break  # more GPUs would do as well
    return replace(now, options=tuple(fitting))


def _check(options: Mapping[str, Any]) -> None:
    """Refuse what the arithmetic cannot take, though vLLM may: `max_model_len=auto`."""
    for name in _COUNTS:
        value = options.get(name, 1)
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is {value!r}: give a whole number of at least 1")
    cache_dtype = str(options.get("kv_cache_dtype") or "auto")
    if cache_dtype not in BYTES_OF:
        known = ", ".join(sorted(BYTES_OF))
        raise ValueError(f"the size of kv_cache_dtype {cache_dtype!r} is not known; known are {known}")


def _read(directory: Path, config: Mapping[str, Any], options: Mapping[str, Any]) -> _Model:
    dtype = str(options.get("dtype") or "auto")
    cache_dtype = str(options.get("kv_cache_dtype") or "auto")
    weights = read_weights(directory, config, dtype)
    kv_cache = read_kv_cache(config, dtype if cache_dtype == "auto" else cache_dtype)
    if weights is None or kv_cache is None:
        raise ValueError(
            "config.json lacks the dimensions of the language model, and there is no safetensors file"
        )
    return _Model(config, weights, kv_cache)


def _estimate(model: _Model, gpu: Gpu, options: Mapping[str, Any], served: bool) -> MemoryEstimate:
    parallel = int(options["tensor_parallel_size"])
    length = int(options["max_model_len"])
    weights = model.weights.size // parallel
    activations = _activations(model.config, gpu, options, served)
    others = weights + activations + _OVERHEAD
    if stated := options.get("kv_cache_memory_bytes"):  # vLLM then ignores gpu_memory_utilization
        budget = min(gpu.memory, others + stated)
    else:
        budget = int(gpu.memory * float(options.get("gpu_memory_utilization", _UTILIZATION)))
    kv_cache = budget - others
    # Each GPU has its share of the heads, and one at least.
    share = max(1, -(-model.kv_cache.heads // parallel)) / model.kv_cache.heads
    step = _batched_tokens(gpu, options, served)
    request = max(1, int(model.kv_cache.request(length, step) * share))
    notes = [
        f"layers of the kind {kind!r} are counted as full attention: what they keep is not known"
        for kind in model.kv_cache.unknown
    ]
    if model.kv_cache.other_layers:
        notes.append(f"{model.kv_cache.other_layers} layers keep a state of fixed size, which is not counted")
    return MemoryEstimate(
        gpu=gpu,
        budget=budget,
        weights=weights,
        weights_from=model.weights.source,
        activations=activations,
        overhead=_OVERHEAD,
        kv_cache=kv_cache,
        request=request,
        max_model_len=length,
        kv_cache_tokens=max(kv_cache, 0) * length // request,
        options=(),
        notes=tuple(notes),
    )


def _activations(config: Mapping[str, Any], gpu: Gpu, options: Mapping[str, Any], served: bool) -> int:
    """The largest of the steps that vLLM profiles at its start, of text or of images, in bytes."""
    tokens = _batched_tokens(gpu, options, served)
    requests = int(options.get("max_num_seqs", 1024 if _is_large(gpu) else 256))
    value = BYTES_OF.get(str(options.get("dtype") or "auto"), 2)
    text = text_config(config)
    hidden, vocabulary = int(text.get("hidden_size") or 0), int(text.get("vocab_size") or 0)
    parallel = int(options["tensor_parallel_size"])
    intermediate = int(text.get("moe_intermediate_size") or text.get("intermediate_size") or 4 * hidden)
    # Residual stream and attention; gate and up projection.
    decoder = tokens * (4 * hidden + 2 * intermediate // parallel) * value
    # The logits of each request, in float32 and sorted.
    logits = min(requests, tokens) * vocabulary * 4 * 2
    vision = vision_config(config)
    vision_hidden, vision_intermediate, _ = vision_sizes(vision)
    patches = tokens * _patches_of_token(config, vision)
    encoder = patches * (4 * vision_hidden + 2 * vision_intermediate // parallel) * value
    return max(decoder + logits, encoder)


def _patches_of_token(config: Mapping[str, Any], vision: Mapping[str, Any]) -> int:
    """How many patches the vision encoder has for each image token."""
    size, patch, tokens = (
        int(found or 0)
        for found in (vision.get("image_size"), vision.get("patch_size"), config.get("mm_tokens_per_image"))
    )
    if size and patch and tokens:  # Gemma 3 pools them
        return max(1, (size // patch) ** 2 // tokens)
    return int(vision.get("spatial_merge_size") or 1) ** 2


def _is_large(gpu: Gpu) -> bool:
    return gpu.memory >= _LARGE and "a100" not in gpu.name.lower()


def _batched_tokens(gpu: Gpu, options: Mapping[str, Any], served: bool) -> int:
    default = (8192 if served else 16384) if _is_large(gpu) else (2048 if served else 8192)
    return int(options.get("max_num_batched_tokens", default))


def _changes(
    model: _Model, gpu: Gpu, given: Mapping[str, Any], served: bool
) -> Iterator[tuple[str, _Model, dict[str, Any]]]:
    """Options to try, each with its description and the model and options that result from it."""
    lengths = range(_SHORTEST_CONTEXT, int(given["max_model_len"]), _STEP)

    def too_long(length: int) -> bool:
        return not _estimate(model, gpu, {**given, "max_model_len": length}, served).fits

    if fitting := bisect_left(lengths, True, key=too_long):
        length = lengths[fitting - 1]
        yield f"--max-model-len {length}", model, {**given, "max_model_len": length}
    if str(given.get("kv_cache_dtype") or "auto") == "auto":
        narrow = read_kv_cache(model.config, "fp8")
        assert narrow is not None  # since the configuration has the dimensions for the wider one
        yield "--engine kv_cache_dtype=fp8", replace(model, kv_cache=narrow), dict(given)
    if not given.get("quantization") and "quantization_config" not in model.config:
        # Linear layers alone; embeddings keep their dtype.
        text = text_config(model.config)
        kept = 2 * 2 * int(text.get("hidden_size") or 0) * int(text.get("vocab_size") or 0)
        size = kept + max(model.weights.size - kept, 0) // 2
        weights = Weights(size, model.weights.source)
        yield "--engine quantization=fp8", replace(model, weights=weights), dict(given)
    heads = int(text_config(model.config).get("num_attention_heads") or 0)
    parallel = int(given["tensor_parallel_size"])
    for more in (2 * parallel, 4 * parallel, 8 * parallel):
        if more <= 16 and heads % more == 0:
            yield f"--engine tensor_parallel_size={more}", model, {**given, "tensor_parallel_size": more}
