"""Any checkpoint that vLLM serves and no other plugin lists: its spec is derived from its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vlm_run import ModelSpec, UnknownTokenCountError, hookimpl
from vlm_run.derivation import PlaceholderUnknownError, derive, takes_images

vlm_run_contract = ">=1.1,<2"


@hookimpl
def model_specs() -> Sequence[ModelSpec]:
    return []  # every spec is derived from a checkpoint


@hookimpl(trylast=True)  # after the plugins of families
def spec_from_checkpoint(config: Mapping[str, Any], folder: Path) -> ModelSpec | None:
    if not takes_images(config, folder):
        return None
    try:
        return derive(config, folder)
    except PlaceholderUnknownError:
        from vlm_run_auto.vllm_facts import placeholder

        found = placeholder(config) if find_spec("vllm") else None
        if found is None:
            raise
        return derive(config, folder, found)


@hookimpl
def count_image_tokens(model: ModelSpec, width: int, height: int) -> int | None:
    if model.vision is None:
        return None
    try:
        return model.vision.count_image_tokens(width, height)
    except UnknownTokenCountError:
        if not find_spec("vllm"):
            raise
        from vlm_run_auto.vllm_facts import image_tokens

        count = image_tokens(model, width, height)
        if count is None:
            raise
        return count
