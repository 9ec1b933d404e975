"""Engine options that vlm-run sets for throughput on a GPU.

They are defaults: options of the plugin, a configuration file or the user take precedence, inside
`compilation_config` too. benchmarks/RESULTS.md has what each one gains.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from packaging.specifiers import SpecifierSet

_NVIDIA_DEVICE = Path("/dev/nvidiactl")

ENCODER_CUDA_GRAPHS = {
    "InternVLChatModel": ">=0.24",
    "Qwen2VLForConditionalGeneration": ">=0.24",
    "Qwen2_5_VLForConditionalGeneration": ">=0.24",
    "Qwen3VLForConditionalGeneration": ">=0.24",
    "Qwen3VLMoeForConditionalGeneration": ">=0.24",
}
"""Architectures and the vLLM versions that can capture CUDA graphs of their vision encoder: those whose model
class implements `SupportsEncoderCudaGraph` (vllm/model_executor/models/, read in 0.24.0 and 0.32.0)."""


def gpu_engine_kwargs(architecture: str, options: Mapping[str, Any], *, served: bool) -> dict[str, Any]:
    """The engine options that vlm-run sets on this machine's GPU; none without one.

    Args:
        architecture: vLLM's name for the model class.
        options: Engine options that are already set. Mappings among them are merged with vlm-run's.
        served: Whether requests arrive one by one at a server. A graph of the encoder takes 10 ms off a
            single request, but makes an offline batch 3 % slower and its start 15 s longer
            (Qwen2-VL-2B on one H200, vLLM 0.24.0, 2026-11-27).
    """
    if not has_nvidia_gpu() or not served or options.get("enforce_eager"):
        return {}
    if not _has_encoder_graphs(architecture):
        return {}
    compilation = options.get("compilation_config", {})
    if not isinstance(compilation, Mapping):
        return {}
    return {"compilation_config": {"cudagraph_mm_encoder": True, **compilation}}


def _has_encoder_graphs(architecture: str) -> bool:
    versions = ENCODER_CUDA_GRAPHS.get(architecture)
    installed = vllm_version()
    return versions is not None and installed is not None and installed in SpecifierSet(versions, True)


@cache
def has_nvidia_gpu() -> bool:
    """Whether this machine has an NVIDIA GPU with its driver."""
    return _NVIDIA_DEVICE.exists()


@cache
def vllm_version() -> str | None:
    """The version of the installed vLLM for GPUs, found without importing it."""
    try:
        return version("vllm").partition("+")[0]
    except PackageNotFoundError:
        return None
