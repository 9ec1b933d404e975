"""The model that an application serves, as its own endpoints describe it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from vlm_run.adapter import Adapter
from vlm_run.engine.versions import vllm_version
from vlm_run.media import MediaPolicy


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The model that an application serves.

    Attributes:
        adapter: The model, under the options of the engine.
        policy: Which images and videos may be fetched, and how large they may be.
        max_model_len: The engine's context length in tokens.
        max_images: Maximum number of images in one conversation; None if there is no limit.
        max_videos: Maximum number of videos in one conversation; 0 if the model takes none, or the engine
            was started without.
        vllm: The version of vLLM.
    """

    adapter: Adapter
    policy: MediaPolicy
    max_model_len: int
    max_images: int | None
    max_videos: int
    vllm: str

    @classmethod
    def of_engine(cls, adapter: Adapter, policy: MediaPolicy, model_config: Any) -> Self:
        """Read the limits from vLLM's `ModelConfig` of the running engine."""
        multimodal = model_config.multimodal_config
        options = multimodal.mm_processor_kwargs if multimodal else None
        return cls(
            adapter=adapter.with_engine_kwargs({"mm_processor_kwargs": options}),
            policy=policy,
            max_model_len=model_config.max_model_len,
            max_images=multimodal.get_limit_per_prompt("image") if multimodal else 0,
            max_videos=multimodal.get_limit_per_prompt("video") if multimodal and adapter.spec.video else 0,
            vllm=str(vllm_version()),
        )
