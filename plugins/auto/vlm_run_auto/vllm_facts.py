"""Facts that vLLM's own classes state about a model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from vlm_run import ModelSpec


def placeholder(config: Mapping[str, Any]) -> str | None:
    """vLLM's placeholder of an image for the model's class, `{index}` in place of its number.

    Returns:
        The placeholder; None if vLLM has no such architecture or names no placeholder.
    """
    from vllm import ModelRegistry

    for architecture in config.get("architectures") or []:
        model = ModelRegistry.models.get(architecture)
        if model is None:
            continue
        try:
            model_class = model.load_model_cls()
            first: str | None = model_class.get_placeholder_str("image", 1)
            second: str | None = model_class.get_placeholder_str("image", 2)
        except Exception:  # an optional dependency of the class is missing, or it takes no images
            return None
        return first if first == second or first is None else first.replace("1", "{index}", 1)
    return None


@lru_cache(maxsize=256)
def _counted(checkpoint: str, chat_template: str, width: int, height: int) -> int | None:
    from vlm_run import EngineError, Registry
    from vlm_run.testing.vllm_processor import image_token_counts

    adapter = Registry.load(checkpoint, chat_template=chat_template)
    try:
        (count,) = image_token_counts(adapter, [(width, height)])
    except EngineError:  # vLLM does not serve the checkpoint
        return None
    return count if isinstance(count, int) else None


def image_tokens(model: ModelSpec, width: int, height: int) -> int | None:
    """The tokens that vLLM's processor puts into the prompt for a blank image; None if it cannot."""
    return _counted(model.source, model.chat_template, width, height)
