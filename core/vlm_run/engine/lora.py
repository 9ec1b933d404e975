"""LoRA adapters: where they are, and the engine options that they need."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlm_run.checkpoints.files import read_json
from vlm_run.checkpoints.hub_cache import snapshot
from vlm_run.errors import EngineError

_CONFIG = "adapter_config.json"  # PEFT's
# vLLM's `MaxLoRARanks` (vllm/config/lora.py), in 0.24.0 to 0.33.0.
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


def read_lora_adapters(values: Sequence[str]) -> dict[str, str]:
    """Read LoRA adapters in the form `NAME=PATH`.

    Args:
        values: One for each adapter. A path is a directory in PEFT's format, or a hub id.

    Returns:
        The paths by their names.

    Raises:
        EngineError: A value has no name or no path, or a name occurs twice.
    """
    adapters: dict[str, str] = {}
    for value in values:
        name, _, path = (part.strip() for part in value.partition("="))
        if not name or not path:
            raise EngineError(f"LoRA adapter '{value}' is not in the form NAME=PATH")
        if name in adapters:
            raise EngineError(f"two LoRA adapters have the name '{name}'")
        adapters[name] = path
    return adapters


def lora_engine_options(adapters: Mapping[str, str]) -> dict[str, Any]:
    """The engine options for LoRA adapters, in vLLM's names; none without adapters.

    All adapters can be used in the same batch. The rank that the engine reserves memory for is the largest
    of theirs, by their `adapter_config.json`.

    Raises:
        EngineError: An adapter does not exist, or its rank is larger than vLLM supports.
    """
    if not adapters:
        return {}
    largest = max(_rank(name, path) for name, path in adapters.items())
    return {
        "enable_lora": True,
        "max_loras": len(adapters),
        "max_lora_rank": next(rank for rank in _RANKS if rank >= largest),
    }


def lora_server_flags(adapters: Mapping[str, str]) -> list[str]:
    """The flags of vLLM's server for LoRA adapters, in JSON, which allows any character in a path."""
    modules = [json.dumps({"name": name, "path": path}) for name, path in adapters.items()]
    return ["--lora-modules", *modules] if modules else []


def _rank(name: str, path: str) -> int:
    directory = Path(path) if Path(path).is_dir() else snapshot(path)
    if directory is None:
        if Path(path).is_absolute() or path.startswith("."):
            raise EngineError(f"LoRA adapter '{name}': {path} is not a directory")
        return _RANKS[2]  # a hub id that vLLM downloads; vLLM's own default
    try:
        rank = read_json(directory / _CONFIG).get("r")
    except ValueError as error:
        raise EngineError(f"LoRA adapter '{name}': {error}") from None
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise EngineError(f"LoRA adapter '{name}': {directory} has no {_CONFIG} with a rank 'r'")
    if rank > _RANKS[-1]:
        raise EngineError(f"LoRA adapter '{name}' has rank {rank}; vLLM supports {_RANKS[-1]} at most")
    return rank
