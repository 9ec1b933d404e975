"""Checks that a model type supports a conversation: its task, its videos, and images of tool messages."""

from __future__ import annotations

from dataclasses import replace

from vlm_run.errors import ConversationError, MediaError, TemplateError, printable
from vlm_run.prompts.conversation import Conversation
from vlm_run.prompts.prompt import Prompt
from vlm_run.specs import ModelSpec
from vlm_run.video import VideoFacts


def with_task_text(spec: ModelSpec, conversation: Conversation) -> Conversation:
    """The conversation with the text of its task, if it has one, before the question.

    Raises:
        ConversationError: The model has no such task, or there is no user message.
    """
    if conversation.task is None:
        return conversation
    return replace(conversation.with_instruction(task_text(spec, conversation.task)), task=None)


def task_text(spec: ModelSpec, task: str) -> str:
    """The text of a task in the prompt.

    Raises:
        ConversationError: The model has no such task.
    """
    text = spec.tasks.get(task)
    if text is None:
        known = ", ".join(spec.tasks)
        raise ConversationError(
            f"'{spec.model_type}' has no task '{printable(task)}'",
            hint=f"Its tasks: {known}." if known else "It has no tasks. Ask a question instead.",
        )
    return text


def check_takes_videos(spec: ModelSpec, conversation: Conversation) -> None:
    """Raise `MediaError`, which names the first video, if there are videos but the model takes none."""
    if places := conversation.video_places():
        video_facts(spec, message_index=places[0][0], video_index=0)


def video_facts(
    spec: ModelSpec, *, message_index: int | None = None, video_index: int | None = None
) -> VideoFacts:
    """How the model sees a video.

    Args:
        spec: The model type.
        message_index: Index of the message with the video, for the error.
        video_index: Index of the video in the conversation, for the error.

    Raises:
        MediaError: The model takes no videos.
    """
    if spec.video is None:
        raise MediaError(
            f"'{spec.model_type}' takes no videos",
            hint="Give frames as images, or use another model.",
            message_index=message_index,
            video_index=video_index,
        )
    return spec.video


def check_images_rendered(spec: ModelSpec, conversation: Conversation, prompt: Prompt) -> None:
    """Raise unless the prompt has a placeholder for each image, where the request may be the cause.

    Few chat templates render images of tool messages; the others leave them out. Variables of the request
    may be of those that the template writes as the placeholder.

    Raises:
        ConversationError: An image of a tool message is not in the prompt.
        TemplateError: With the request's variables, an image is missing or there twice.
    """
    places = [index for index, _ in conversation.image_places()]
    of_tools = [index for index in places if conversation.messages[index].role == "tool"]
    if not (of_tools or conversation.template_kwargs):
        return
    if len(prompt.split(spec.image_placeholder)) == len(places) + 1:
        return
    if of_tools:
        raise ConversationError(
            f"the chat template of '{spec.model_type}' does not render images of tool messages",
            hint="Give the image in a user message.",
            message_index=of_tools[0],
        )
    raise TemplateError(
        f"the chat template of '{spec.model_type}' does not render each image once with "
        "the variables of this request"
    )
