"""The default implementation of the hooks, called after the plugin that owns the model type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_run.errors import PluginError, TemplateError, UnknownTokenCountError
from vlm_run.hookspecs import hookimpl
from vlm_run.prompts.support import video_facts
from vlm_run.specs import Limits, ModelSpec

if TYPE_CHECKING:
    from PIL import Image

    from vlm_run.prompts.conversation import Conversation


@hookimpl
def render_prompt(model: ModelSpec, conversation: Conversation) -> str:
    from vlm_run.prompts import chat_template

    try:
        return chat_template.render(
            Path(model.chat_template),
            _messages(model, conversation),
            bos_token=model.bos_token,
            eos_token=model.eos_token,
            tools=conversation.tools,
            variables={**model.template_kwargs, **conversation.template_kwargs},
        )
    except PluginError as error:
        if conversation.template_kwargs:  # a template may fail on any value that it does not expect
            raise TemplateError(f"with the variables of this request, {error}") from error
        raise


def _messages(model: ModelSpec, conversation: Conversation) -> list[dict[str, Any]]:
    if model.template_content == "parts":
        return conversation.template_messages()
    numbers = count(1)
    return conversation.text_messages(lambda: placeholder(model, next(numbers)))


@hookimpl
def preprocess_image(model: ModelSpec, image: Image.Image) -> Image.Image:
    if model.vision is not None:
        model.vision.check_size(*image.size)
    return image


@hookimpl
def placeholder(model: ModelSpec, index: int) -> str:
    return model.image_placeholder.replace("{index}", str(index))


@hookimpl
def count_image_tokens(model: ModelSpec, width: int, height: int) -> int:
    if model.vision is None:
        raise UnknownTokenCountError(
            f"the plugin of '{model.model_type}' does not tell how many tokens an image takes",
            hint="Its spec needs `vision`, or it must implement `count_image_tokens`.",
        )
    model.vision.check_size(width, height)
    return model.vision.count_image_tokens(width, height)


@hookimpl
def count_video_tokens(
    model: ModelSpec, width: int, height: int, frames: int, fps: float, times: Sequence[float]
) -> int:
    return video_facts(model).count(width, height, frames, fps, times)


@hookimpl
def engine_kwargs(model: ModelSpec, limits: Limits) -> Mapping[str, Any]:
    return limits.apply_to(Limits(max_images=model.max_images).apply_to(model.engine_kwargs), model.vision)
