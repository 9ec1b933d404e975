"""Whether an engine can process the largest image, which is checked before the engine starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlm_run.errors import EngineError
from vlm_run.explain.start_notes import largest_image_advice

if TYPE_CHECKING:
    from vllm.config import VllmConfig

    from vlm_run.adapter import Adapter


def check_image_budget(adapter: Adapter, config: VllmConfig) -> None:
    """Refuse a configuration with which vLLM would not start, because of the largest image.

    vLLM processes the tokens of an image in several steps where `max_num_batched_tokens` is smaller. With
    `disable_chunked_mm_input`, which it sets itself for models whose image tokens attend to each other
    (Gemma 3), an image must fit in one step.

    Source: `compute_mm_encoder_budget` in vllm/v1/core/encoder_cache_manager.py.

    Args:
        adapter: The model, under the engine's `mm_processor_kwargs`.
        config: The engine's configuration.

    Raises:
        EngineError: The largest image does not fit in one step.
    """
    scheduler, multimodal = config.scheduler_config, config.model_config.multimodal_config
    if not scheduler.disable_chunked_mm_input or multimodal is None:
        return
    largest = adapter.largest_image() if multimodal.get_limit_per_prompt("image") else None
    most = scheduler.max_num_batched_tokens
    if largest is None or largest[1] <= most:
        return
    (width, height), tokens = largest
    raise EngineError(
        f"'{adapter.spec.model_type}' cannot start: an image of {width} × {height} pixels takes {tokens:,} "
        f"tokens, which vLLM must process in one step, but max_num_batched_tokens is {most:,}",
        hint=largest_image_advice(adapter, f"it with --engine max_num_batched_tokens={tokens}"),
    )
