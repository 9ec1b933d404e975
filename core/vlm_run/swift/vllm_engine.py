"""`get_vllm_engine`, and the engine that it returns."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from vlm_run.engine import Engine
from vlm_run.engine.quiet import quiet_start
from vlm_run.media import MediaPolicy
from vlm_run.registry import Registry
from vlm_run.swift.generation_config import GenerationConfig


class VllmEngine(Engine):
    """An `Engine` with the attributes that ms-swift's scripts use.

    Attributes:
        model_type: The model type.
        generation_config: Sampling parameters of calls without their own.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model_type = self.adapter.spec.model_type
        self.generation_config = GenerationConfig()

    @property
    def hf_tokenizer(self) -> Any:
        """The checkpoint's tokenizer, from transformers."""
        return self.tokenizer


def get_vllm_engine(
    model_type: str,
    torch_dtype: Any = None,
    *,
    model_id_or_path: str | Path | None = None,
    policy: MediaPolicy | None = None,
    engine_kwargs: Mapping[str, Any] | None = None,
    use_async: bool = False,
    verbose: bool = False,
    **options: Any,
) -> VllmEngine:
    """Start vLLM with a model. See `Engine` for when it stops.

    Args:
        model_type: A model type, for example from `ModelType`, or a checkpoint directory.
        torch_dtype: A torch dtype or its name; None for vLLM's choice.
        model_id_or_path: Where the weights come from instead of the plugin's own source.
        policy: Which images may be loaded.
        engine_kwargs: Engine options, in ms-swift's form.
        use_async: Ignored; every engine has `ainfer` and `astream`.
        verbose: Whether vLLM's log is shown.
        options: Further engine options: `max_model_len`, `tensor_parallel_size`,
            `gpu_memory_utilization`, `limit_mm_per_prompt`, `max_num_seqs` …

    Raises:
        UnknownModelError: No installed plugin serves the model type.
        EngineError: An option is unknown, or vLLM could not start.
    """
    options = {
        **(engine_kwargs or {}),
        **{name: value for name, value in options.items() if value is not None},
    }
    if torch_dtype is not None:
        options["dtype"] = str(torch_dtype).removeprefix("torch.")
    adapter = Registry.load(model_type, checkpoint=model_id_or_path)
    with contextlib.nullcontext() if verbose else quiet_start(), _hide_main_module():
        return VllmEngine(adapter, policy=policy, **options)


@contextlib.contextmanager
def _hide_main_module() -> Iterator[None]:
    """Keep processes that start inside the block from running the caller's script again.

    ms-swift's scripts have no `if __name__ == "__main__":`. A spawned process imports the main module
    from its file, and would start an engine of its own, unless the module's spec is named `__main__`.
    """
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        yield
        return
    main.__spec__ = ModuleSpec("__main__", None)
    try:
        yield
    finally:
        main.__spec__ = spec
