"""`GET /v1/adapter`: the model, its plugin, and the image tokens of an example image."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

import vlm_run
from vlm_run.adapter import Adapter
from vlm_run.engine.versions import vllm_version
from vlm_run.explain import Explanation, explain
from vlm_run.prompts.conversation import Conversation

router = APIRouter()

Side = Annotated[int, Query(ge=1, le=100_000, description="Size of the example image in pixels.")]
_QUESTION = "What is in the picture?"


@router.get("/v1/adapter")
async def adapter_info(request: Request, width: Side = 640, height: Side = 480) -> dict[str, Any]:
    """Describe the model type, its plugin and limits, and the prompt for an image of a given size."""
    state = request.app.state
    adapter: Adapter = state.vlm_run
    config = state.vllm_config.model_config
    multimodal = config.multimodal_config
    options: dict[str, Any] = {"max_model_len": config.max_model_len}
    if multimodal and multimodal.mm_processor_kwargs:
        options["mm_processor_kwargs"] = multimodal.mm_processor_kwargs
    explained = await asyncio.to_thread(_explain, adapter, width, height, options)
    return {
        "model_type": adapter.spec.model_type,
        "family": adapter.spec.family,
        "architecture": adapter.spec.architecture,
        "plugin": {"name": adapter.plugin.name, "version": adapter.plugin.version},
        "versions": {"vlm_run": vlm_run.__version__, "vllm": str(vllm_version())},
        "placeholder": adapter.placeholder(1),
        "stop": list(adapter.spec.stop),
        "limits": {
            "max_model_len": config.max_model_len,
            "max_images": multimodal.get_limit_per_prompt("image") if multimodal else 0,
        },
        "explain": {
            "question": _QUESTION,
            "prompt": explained.prompt,
            "images": explained.to_dict()["images"],
            "text_tokens": explained.text_tokens,
            "image_tokens": explained.image_tokens,
            "total_tokens": explained.total_tokens,
            "notes": list(explained.notes),
        },
    }


def _explain(adapter: Adapter, width: int, height: int, options: dict[str, Any]) -> Explanation:
    conversation = Conversation.from_query(_QUESTION, images=[f"{width}x{height}"])
    return explain(adapter, conversation, **options)
