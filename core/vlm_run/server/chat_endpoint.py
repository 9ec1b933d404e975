"""`POST /v1/chat/completions`: OpenAI's and vLLM's request, with ms-swift's fields `images` and `videos`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request
from pydantic import Field, model_validator
from vllm.entrypoints.openai.chat_completion.api_router import create_chat_completion
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.serve.utils.api_utils import validate_json_request

from vlm_run.engine.vllm_internals import with_own_field_names
from vlm_run.errors import ConversationError, RequestError
from vlm_run.prompts.conversation import with_media_parts
from vlm_run.prompts.message import read_message
from vlm_run.request import PIXEL_BOUNDS
from vlm_run.server.chat_renderer import TASK

router = APIRouter()


@with_own_field_names
class ChatRequest(ChatCompletionRequest):  # type: ignore[misc]
    """vLLM's chat request, which also accepts images and videos in the form of ms-swift's servers."""

    images: list[str | None] | str | None = Field(
        default=None,
        description=(
            "Images, each a URL, base64, a data URI, or a local path if the server allows it. They take the "
            "places of the `<image>` tags in the messages' text. Without tags they belong to the last user "
            "message, or, with one entry per user message, to these in order, null for a message without "
            "an image. Text may also contain images as `<img>URL</img>`."
        ),
    )

    videos: list[str | list[str] | dict[str, Any] | None] | str | None = Field(
        default=None,
        description=(
            "Videos in the same form, for the `<video>` tags in the messages' text or for the user messages. "
            "A video may also be a list of frames, each an image, or an object with `frames` and `times` in "
            "seconds. Text may also contain videos as `<video>URL</video>`."
        ),
    )

    min_pixels: int | None = Field(
        default=None, description="Enlarge smaller images to this area, within the server's own bounds."
    )
    max_pixels: int | None = Field(
        default=None, description="Shrink larger images to this area, within the server's own bounds."
    )

    task: str | None = Field(
        default=None,
        description=(
            "A task of the model, one of `tasks` in `/v1/adapter`. Its text precedes that of the last user "
            "message."
        ),
    )

    @model_validator(mode="before")
    @classmethod
    def _read_task(cls, data: Any) -> Any:
        """Hand the task to the renderer, which vLLM gives the template's variables and no other field."""
        if not isinstance(data, dict) or data.get("task") is None:
            return data
        if not isinstance(data["task"], str):
            raise RequestError(f"'task' must be the name of a task, not {type(data['task']).__name__}")
        options = data.get("chat_template_kwargs")
        if options is not None and not isinstance(options, dict):
            return data  # for pydantic to refuse
        return {**data, "chat_template_kwargs": {**(options or {}), TASK: data["task"]}}

    @model_validator(mode="before")
    @classmethod
    def _read_shorthands(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        images, videos, messages = data.get("images"), data.get("videos"), data.get("messages")
        _check_sources("image", images)
        _check_sources("video", videos)
        if isinstance(messages, list):
            # Here, since errors of vlm-run are clearer than pydantic's about a union of types.
            for index, message in enumerate(messages):
                read_message(index, message, read_tags=frozenset())
        bounds = {name: data.get(name) for name in PIXEL_BOUNDS}
        if not isinstance(messages, list) or not (
            images is not None or videos is not None or any(bounds.values()) or _has_tag(messages)
        ):
            return data
        return {
            **data,
            "messages": with_media_parts(messages, images, videos, **bounds),
            "images": None,
            "videos": None,
            **dict.fromkeys(bounds),
        }


@router.post("/v1/chat/completions", dependencies=[Depends(validate_json_request)])
async def chat_completions(request: ChatRequest, raw_request: Request) -> Any:
    """Answer a conversation about images; OpenAI's chat completions."""
    return await create_chat_completion(request, raw_request)


def _has_tag(messages: list[Any]) -> bool:
    return any(
        isinstance(message, dict)
        and isinstance(message.get("content"), str)
        and any(tag in message["content"] for tag in ("<img>", "</video>"))
        for message in messages
    )


def _check_sources(kind: str, sources: Any) -> None:
    if sources is not None and not isinstance(sources, (list, str)):
        raise ConversationError(f"'{kind}s' must be a list")
    for index, source in enumerate(sources if isinstance(sources, list) else []):
        frames = source.get("frames") if isinstance(source, dict) else source
        one = frames if kind == "video" and isinstance(frames, list) else [source]
        for each in one:
            if each is not None and not isinstance(each, str):
                raise ConversationError(
                    f"an entry of '{kind}s' cannot be of type {type(each).__name__}",
                    hint="Give a URL, base64, a data URI or null.",
                    **{f"{kind}_index": index},
                )
