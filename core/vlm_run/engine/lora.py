"""LoRA adapters: where they are, and the engine options that they need."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_run.checkpoints.files import read_json
from vlm_run.checkpoints.hub_cache import snapshot
from vlm_run.errors import EngineError, RequestError, did_you_mean, printable
from vlm_run.plugins.cpu_dtype import vllm_is_for_cpu

if TYPE_CHECKING:
    from vllm.lora.request import LoRARequest
    from vllm.v1.engine.async_llm import AsyncLLM

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
        adapters[name] = os.path.expanduser(path)  # a shell leaves the ~ in NAME=~/PATH
    return adapters


def read_adapters_and_default(values: Sequence[str]) -> tuple[dict[str, str], str | None]:
    """Read LoRA adapters in the form `NAME=PATH`, or one as a `PATH`, which is then named by its last part.

    A directory that exists is a path even if an equals sign is in it, as in `lr=1e-4/checkpoint-100`.

    Returns:
        The paths by their names, and the adapter of requests that name none: the only one, if there is one.

    Raises:
        EngineError: As `read_lora_adapters`.
    """
    if len(values) == 1 and ("=" not in values[0] or Path(values[0]).is_dir()):
        path = os.path.expanduser(values[0])
        adapters = {Path(path).resolve().name: path}
    else:
        adapters = read_lora_adapters(values)
    return adapters, next(iter(adapters)) if len(adapters) == 1 else None


class LoraAdapters:
    """The LoRA adapters of a running engine, by their names.

    Args:
        paths: A directory in PEFT's format, or a hub id, for each name.
        default: The name of the adapter of requests that name none; None for the base model.
        most: Most adapters that may be loaded; None for any number, of which vLLM keeps the ones in use.

    Raises:
        EngineError: There is no adapter with the name of the default.
    """

    def __init__(
        self, paths: Mapping[str, str | Path], default: str | None = None, most: int | None = None
    ) -> None:
        self._paths = {name: str(path) for name, path in paths.items()}
        # vLLM knows adapters by numbers from 1. No number is used twice, not even that of one that failed.
        self._numbers = count(1)
        self._ids = {name: next(self._numbers) for name in self._paths}
        self._default = default
        self._most = most
        if default and default not in self._paths:
            raise EngineError(
                f"there is no LoRA adapter '{default}'", hint=f"Known: {', '.join(self._paths) or 'none'}."
            )

    async def load(self, llm: AsyncLLM) -> None:
        """Load all adapters, so that one that vLLM cannot apply is reported before the first request.

        Raises:
            EngineError: An adapter cannot be loaded.
        """
        for name in self._paths:
            await self._load(llm, name)

    async def add(self, llm: AsyncLLM, name: str, path: str) -> None:
        """Load another adapter, unless it is already loaded.

        Raises:
            EngineError: The adapter cannot be loaded, or another one has its name.
        """
        if self._paths.get(name, path) != path:
            raise EngineError(f"another LoRA adapter has the name '{name}': {self._paths[name]}")
        if name not in self._paths:
            if self._most is not None and len(self._paths) >= self._most:
                raise EngineError(
                    f"the engine has no slot for LoRA adapter '{name}': on a CPU it has {self._most}",
                    hint=f"Start it with max_loras={self._most + 1}.",
                )
            self._paths[name] = path
            self._ids[name] = next(self._numbers)
            try:
                await self._load(llm, name)
            except EngineError:
                del self._paths[name]
                raise

    async def _load(self, llm: AsyncLLM, name: str) -> None:
        try:
            await llm.add_lora(self._request(name))
        except Exception as error:  # vLLM's own, and those of files
            raise EngineError(
                # vLLM lists each layer that it does not know.
                f"vLLM cannot load LoRA adapter '{name}' from {self._paths[name]}: "
                f"{printable(str(error), 400).rstrip('.')}",
                hint="Use an adapter that was trained for this model. "
                "If you set enable_lora or max_lora_rank, they must allow it.",
            ) from error

    def request(self, name: str | None) -> LoRARequest | None:
        """vLLM's form of the adapter that a request names; None for the base model.

        Raises:
            RequestError: There is no adapter of that name.
        """
        name = self._default if name is None else name
        if not name:
            return None
        if name not in self._paths:
            raise RequestError(
                f"there is no LoRA adapter '{printable(name)}'",
                hint=did_you_mean(name, list(self._paths))
                or f"Known: {', '.join(self._paths) or 'none; give them with --lora NAME=PATH'}.",
            )
        return self._request(name)

    def _request(self, name: str) -> LoRARequest:
        from vllm.lora.request import LoRARequest

        return LoRARequest(name, self._ids[name], self._paths[name])


def lora_engine_options(
    adapters: Mapping[str, str | Path], given: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The engine options for LoRA adapters, in vLLM's names; none without adapters.

    All adapters can be used in the same batch. The rank that the engine reserves memory for is the largest
    of theirs, by their `adapter_config.json`.

    Args:
        adapters: The paths of the adapters by their names.
        given: Options of the user, which take precedence.

    Raises:
        EngineError: An adapter does not exist, or its rank is larger than vLLM supports.
    """
    given = given or {}
    if not adapters and not given.get("enable_lora"):
        return {}
    options: dict[str, Any] = {"enable_lora": True, "max_loras": max(1, len(adapters))}
    if adapters:
        largest = max(_rank(name, str(path)) for name, path in adapters.items())
        options["max_lora_rank"] = next(rank for rank in _RANKS if rank >= largest)
    options |= {name: value for name, value in given.items() if name in (*options, "max_lora_rank")}
    if vllm_is_for_cpu():
        # On a CPU a request without an adapter gets what is in the last slot if another request of the same
        # step has an adapter: the index -1 is not left out (vllm/lora/ops/torch_ops/lora_ops.py, 0.32.0).
        # So one slot more, which stays empty.
        options["max_loras"] = max(options["max_loras"], len(adapters)) + 1
    return options


def most_loras(options: Mapping[str, Any]) -> int | None:
    """The number of adapters for which the engine options have slots, where vLLM may not reuse them."""
    return options["max_loras"] - 1 if vllm_is_for_cpu() and options.get("enable_lora") else None


def lora_server_flags(adapters: Mapping[str, str]) -> list[str]:
    """The flags of vLLM's server for LoRA adapters, in JSON, which allows any character in a path."""
    modules = [json.dumps({"name": name, "path": path}) for name, path in adapters.items()]
    return ["--lora-modules", *modules] if modules else []


def _rank(name: str, path: str) -> int:
    path = os.path.expanduser(path)  # as vLLM does
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
