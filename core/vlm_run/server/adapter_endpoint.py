"""`GET /v1/adapter`: the model, its plugin, and the image tokens of an example image."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

import vlm_run
from vlm_run.explain import explain
from vlm_run.prompts.conversation import Conversation
from vlm_run.server.served_model import ServedModel

router = APIRouter()

Side = Annotated[int, Query(ge=1, le=100_000, description="Size of the example image in pixels.")]
Area = Annotated[int, Query(ge=1, description="Bound on the image's area in pixels, as in a request.")]
_QUESTION = "What is in the image?"


@router.get("/v1/adapter")
async def adapter_info(
    request: Request,
    width: Side = 640,
    height: Side = 480,
    min_pixels: Area | None = None,
    max_pixels: Area | None = None,
) -> dict[str, Any]:
    """Describe the model type, its plugin and limits, and the prompt for an image of a given size."""
    served: ServedModel = request.app.state.served
    adapter, policy = served.adapter, served.policy
    conversation = Conversation.from_query(_QUESTION, images=[f"{width}x{height}"])
    conversation = conversation.with_pixel_bounds(min_pixels, max_pixels)
    explained = await asyncio.to_thread(
        explain, adapter, conversation, policy=policy, max_model_len=served.max_model_len
    )
    described = explained.to_dict()
    return {
        "model_type": adapter.spec.model_type,
        "family": adapter.spec.family,
        "architecture": adapter.spec.architecture,
        "plugin": {"name": adapter.plugin.name, "version": adapter.plugin.version},
        "versions": {"vlm_run": vlm_run.__version__, "vllm": served.vllm},
        "placeholder": adapter.placeholder(1),
        "stop": list(adapter.spec.stop),
        "tasks": dict(adapter.spec.tasks),
        "box_coordinates": described["box_coordinates"],
        "takes_videos": adapter.spec.video is not None,
        "limits": {
            "max_model_len": served.max_model_len,
            "max_images": served.max_images,
            "max_image_bytes": policy.max_bytes,
            "max_image_pixels": policy.max_pixels,
            "max_videos": served.max_videos,
            "max_video_bytes": policy.max_video_bytes,
            "pixel_bounds": adapter.takes_pixel_bounds,
        },
        "explain": {
            "question": _QUESTION,
            "prompt": explained.prompt,
            "images": described["images"],
            "text_tokens": explained.text_tokens,
            "image_tokens": explained.image_tokens,
            "total_tokens": explained.total_tokens,
            "notes": list(explained.notes),
        },
    }
