"""Whether a model fits on a GPU, by its checkpoint's files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_run.checkpoints.files import read_json
from vlm_run.checkpoints.gpu_memory import Gpu, MemoryEstimate, estimate_memory
from vlm_run.checkpoints.hub_cache import configuration
from vlm_run.errors import VlmRunError

if TYPE_CHECKING:
    from vlm_run.adapter import Adapter


def adapter_memory(
    adapter: Adapter, kwargs: Mapping[str, Any], gpu: Gpu, served: bool, notes: list[str]
) -> MemoryEstimate:
    source = str(kwargs.get("model") or adapter.source)
    directory = Path(source) if os.path.isdir(source) else configuration(source)
    if directory is None:
        raise VlmRunError(
            f"the memory of {source} cannot be estimated: its config.json is neither on this machine nor "
            "available from the Hugging Face hub",
            hint="Download the model with `vlm-run pull`, or give its directory with --model.",
        )
    try:
        memory = estimate_memory(
            directory,
            read_json(directory / "config.json"),
            gpu,
            kwargs,
            context_length=adapter.spec.context_length or 4096,
            served=served,
        )
    except ValueError as error:
        raise VlmRunError(f"the memory of {source} cannot be estimated: {error}") from error
    notes.extend(memory.notes)
    if not memory.fits and source not in adapter.spec.quantized and adapter.spec.quantized:
        notes.append(f"there are quantized weights: {', '.join(adapter.spec.quantized)}")
    return memory
