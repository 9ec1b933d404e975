"""The prompt that would be sent to the model, and its token counts, without an engine or a model library.

>>> from vlm_run import Conversation, Registry
>>> from vlm_run.explain import explain
>>> adapter = Registry.load("qwen2-vl-7b-instruct")
>>> explanation = explain(adapter, Conversation.from_query("What is this?", images=["640x480"]))
>>> explanation.images
(ImageCost(width=640, height=480, resized=(644, 476), tokens=391),)
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_run.checkpoints.hub_cache import snapshot
from vlm_run.checkpoints.tokenizer_file import TokenizerFile
from vlm_run.explain.explanation import Explanation, ImageCost, Placeholder, VideoCost
from vlm_run.explain.image_costs import image_costs, with_each_image
from vlm_run.explain.option_layers import option_layers
from vlm_run.explain.start_notes import context_note
from vlm_run.explain.video_costs import video_costs
from vlm_run.prompts.conversation import Conversation
from vlm_run.prompts.prompt import Prompt

if TYPE_CHECKING:
    from vlm_run.adapter import Adapter
    from vlm_run.checkpoints.gpu_memory import Gpu, MemoryEstimate
    from vlm_run.media import MediaPolicy

__all__ = ["Explanation", "ImageCost", "Placeholder", "VideoCost", "explain"]


def explain(
    adapter: Adapter,
    conversation: Conversation,
    *,
    policy: MediaPolicy | None = None,
    served: bool = False,
    gpu: Gpu | None = None,
    **overrides: Any,
) -> Explanation:
    """Show the prompt that would be sent to the model for a conversation, and its cost.

    Args:
        adapter: The model, from `Registry.load`.
        conversation: Messages with text and images. A size such as "640x480" may stand in for an
            image; any other image is loaded, as it is for an answer.
        policy: Which images may be fetched, and how large they may be.
        served: Show the engine options of a server.
        gpu: Estimate whether the model fits on it. Reads `config.json` and the safetensors index of the
            checkpoint, from the Hugging Face hub if they are not on this machine.
        overrides: Engine options, which take precedence over the adapter's.

    Raises:
        RequestError: The conversation or one of its images is refused, as it would be for an answer.
        VlmRunError: The checkpoint's files do not tell what it takes of the GPU.
    """
    kwargs = adapter.engine_kwargs(served=served, **overrides)
    adapter = adapter.with_engine_kwargs(kwargs)
    dtype_note = adapter.dtype_note(**overrides)
    if dtype_note and gpu is not None:
        del kwargs["dtype"]  # for this machine's CPU
        dtype_note = None
    notes = _model_notes(adapter, dtype_note, overrides)
    tokenizer = _tokenizer(adapter, notes)
    prompt = _render(adapter, conversation, tokenizer)
    images: tuple[ImageCost, ...] = ()
    if conversation.images:
        paged = with_each_image(conversation, policy)
        if len(paged.images) != len(conversation.images):
            prompt = _render(adapter, paged, tokenizer)
        images = image_costs(adapter, paged, policy, notes)
    videos = video_costs(adapter, conversation, policy)
    memory: MemoryEstimate | None = None
    if gpu is not None:
        from vlm_run.explain.memory import adapter_memory

        memory = adapter_memory(adapter, kwargs, gpu, served, notes)
    explanation = Explanation(
        model_type=adapter.spec.model_type,
        family=adapter.spec.family,
        plugin=adapter.plugin.name,
        architecture=adapter.spec.architecture,
        vllm=adapter.spec.vllm,
        source=adapter.source,
        prompt=prompt.text,
        placeholders=_placeholders(adapter, prompt, len(images)),
        images=images,
        text_tokens=None
        if tokenizer is None
        else _text_tokens(adapter, prompt, tokenizer, len(images) + len(videos)),
        context_length=adapter.spec.context_length,
        max_model_len=kwargs.get("max_model_len") or adapter.spec.context_length,
        engine_kwargs=kwargs,
        engine_kwargs_from=option_layers(adapter, kwargs, overrides),
        notes=(),
        memory=memory,
        box_coordinates=adapter.spec.box_coordinates,
        tasks=adapter.spec.tasks,
        videos=videos,
    )
    return _with_notes(explanation, notes)


def _model_notes(adapter: Adapter, dtype_note: str | None, overrides: Mapping[str, Any]) -> list[str]:
    """Notes about the model type and the engine, whatever the conversation is."""
    notes = []
    if adapter.spec.replaced_by is not None:
        notes.append(
            f"no vLLM version that vlm-run supports serves this model type, which needs {adapter.spec.vllm}: "
            f"use '{adapter.spec.replaced_by}' instead"
        )
    if note := context_note(adapter, **overrides):
        notes.append(note)
    if dtype_note:
        notes.append(dtype_note)
    if adapter.spec.derived_from:
        notes.append(
            f"no plugin lists this checkpoint: {adapter.plugin.name} derived its spec "
            f"(`vlm-run models --checkpoint {adapter.source}` shows how)"
        )
    return notes


def _render(adapter: Adapter, conversation: Conversation, tokenizer: TokenizerFile | None) -> Prompt:
    if tokenizer is None:
        return adapter.render_prompt(conversation)
    from vlm_run.prompts.tokenize import control_tokens

    return adapter.render_prompt(conversation, control_tokens(tokenizer))


def _tokenizer(adapter: Adapter, notes: list[str]) -> TokenizerFile | None:
    """The tokenizer of the checkpoint in use, or of the one that the plugin ships."""
    for source in dict.fromkeys(filter(None, [adapter.source, adapter.spec.checkpoint])):
        directory = Path(source) if os.path.isdir(source) else snapshot(source)
        try:
            if directory is not None and (tokenizer := TokenizerFile.of_directory(directory)):
                return tokenizer
        except ValueError as error:
            notes.append(str(error))
    notes.append("text tokens are not counted: no tokenizer.json was found (give its directory with --model)")
    return None


def _text_tokens(adapter: Adapter, prompt: Prompt, tokenizer: TokenizerFile, media: int) -> int:
    from vlm_run.prompts.tokenize import encode

    # The tokens of each image and video replace one token.
    return len(encode(prompt, tokenizer, adapter.spec)) - media


def _placeholders(adapter: Adapter, prompt: Prompt, images: int) -> tuple[Placeholder, ...]:
    places: list[Placeholder] = []
    position = 0
    for image in range(1, images + 1):
        text = adapter.placeholder(image)
        start = prompt.text.find(text, position)
        while any(first <= start < last for first, last in prompt.literals):
            start = prompt.text.find(text, start + 1)
        if start < 0:
            break
        position = start + len(text)
        places.append(Placeholder(image, start, position))
    return tuple(places)


def _given(count: int, noun: str) -> str:
    return f"1 {noun} is given" if count == 1 else f"{count} {noun}s are given"


def _with_notes(explanation: Explanation, notes: list[str]) -> Explanation:
    """The explanation with its notes: first what would fail, then what could not be determined."""
    wrong = []
    limits = explanation.engine_kwargs.get("limit_mm_per_prompt") or {}
    images, most = len(explanation.images), limits.get("image")
    if isinstance(most, int) and images > most:
        wrong.append(f"{_given(images, 'image')}, but the engine would accept at most {most} (--max-images)")
    if len(explanation.placeholders) < images:
        wrong.append(f"the prompt has {len(explanation.placeholders)} placeholders for {images} images")
    videos, most_videos = len(explanation.videos), limits.get("video")
    if isinstance(most_videos, int) and videos > most_videos:
        wrong.append(
            f"{_given(videos, 'video')}, but the engine would accept at most {most_videos} (--max-videos)"
        )
    known = explanation.total_tokens or explanation.image_tokens or explanation.text_tokens or 0
    context = explanation.max_model_len
    if context is not None and known >= context:
        wrong.append(f"the prompt leaves no room for an answer: {known} of {context} tokens")
    return replace(explanation, notes=(*wrong, *dict.fromkeys(notes)))
