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
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_run.checkpoints.files import read_json
from vlm_run.checkpoints.hub_cache import configuration, snapshot
from vlm_run.checkpoints.tokenizer_file import TokenizerFile
from vlm_run.errors import MediaError, MediaWarning, UnknownTokenCountError, VlmRunError
from vlm_run.media.source import ImageSource, Pages
from vlm_run.plugins.gpu_throughput import gpu_engine_kwargs
from vlm_run.prompts.conversation import Conversation, Image
from vlm_run.prompts.prompt import Prompt

if TYPE_CHECKING:
    from PIL import Image as PILImage

    from vlm_run.adapter import Adapter
    from vlm_run.boxes import BoxCoordinates
    from vlm_run.checkpoints.gpu_memory import Gpu, MemoryEstimate
    from vlm_run.media import MediaPolicy

CORE, PLUGIN, CONFIG, FLAG = "vlm-run", "plugin default", "config", "flag"
THROUGHPUT = "vlm-run, for throughput"
"""The layers that set engine options, in order of precedence, lowest first."""

_SIZE = re.compile(r"(\d{1,6})[xX×](\d{1,6})")


@dataclass(frozen=True, slots=True)
class ImageCost:
    """The size and the token count of one image.

    Attributes:
        width: Image width in pixels, after EXIF rotation; for a page of a PDF, as it is rendered.
        height: Image height in pixels, likewise.
        resized: Width and height in pixels to which the image processor resizes the whole image; None
            if the plugin does not tell.
        tokens: Image tokens in the prompt; None if the plugin does not tell.
        page: The page of a document that the image is, counted from 1; None for any other image.
    """

    width: int
    height: int
    resized: tuple[int, int] | None
    tokens: int | None
    page: int | None = None


@dataclass(frozen=True, slots=True)
class Placeholder:
    """The place of an image in the prompt.

    Attributes:
        image: The number of the image, counted from 1.
        start: Index of the first character of its placeholder.
        end: Index after the last character of its placeholder.
    """

    image: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would be sent to the model, and what it costs.

    Attributes:
        model_type: The model type.
        family: The family of the model type.
        plugin: The plugin that serves the model type.
        architecture: vLLM's name for the architecture.
        vllm: The vLLM versions that serve the model type.
        source: Where the weights would be loaded from.
        prompt: The prompt as passed to the tokenizer.
        placeholders: The places of the images in the prompt.
        images: The size and token count of each image.
        text_tokens: Number of tokens that are not image tokens; None if no tokenizer.json was found.
        context_length: The model's native context length in tokens.
        max_model_len: The engine's context length in tokens; None if vLLM would choose it.
        engine_kwargs: The options with which the engine would start.
        engine_kwargs_from: The layer that set each option; nested options have dotted names.
        notes: What would fail, and what could not be determined.
        memory: What the model would take of a GPU, if one was given.
        box_coordinates: How the model writes the coordinates of boxes; None if that is not documented.
        tasks: The tasks of the model, each with its text in the prompt.
    """

    model_type: str
    family: str
    plugin: str
    architecture: str
    vllm: str
    source: str
    prompt: str
    placeholders: tuple[Placeholder, ...]
    images: tuple[ImageCost, ...]
    text_tokens: int | None
    context_length: int | None
    max_model_len: int | None
    engine_kwargs: dict[str, Any]
    engine_kwargs_from: dict[str, str]
    notes: tuple[str, ...]
    memory: MemoryEstimate | None = None
    box_coordinates: BoxCoordinates | None = None
    tasks: Mapping[str, str] = field(default_factory=dict)

    @property
    def image_tokens(self) -> int | None:
        """Tokens of all images together; None if the count of one is unknown."""
        return _sum([image.tokens for image in self.images])

    @property
    def total_tokens(self) -> int | None:
        """Tokens of the whole prompt; None if a part of it is unknown."""
        return _sum([self.text_tokens, self.image_tokens])

    def to_dict(self) -> dict[str, Any]:
        """The explanation as JSON-compatible data."""
        return {
            "model_type": self.model_type,
            "family": self.family,
            "plugin": self.plugin,
            "architecture": self.architecture,
            "vllm": self.vllm,
            "source": self.source,
            "tasks": dict(self.tasks),
            "prompt": self.prompt,
            "placeholders": [
                {"image": place.image, "start": place.start, "end": place.end} for place in self.placeholders
            ],
            "images": [
                {
                    "width": image.width,
                    "height": image.height,
                    "resized": list(image.resized) if image.resized else None,
                    "tokens": image.tokens,
                    **({} if image.page is None else {"page": image.page}),
                }
                for image in self.images
            ],
            "box_coordinates": self.box_coordinates and self.box_coordinates.model_dump(),
            "text_tokens": self.text_tokens,
            "image_tokens": self.image_tokens,
            "total_tokens": self.total_tokens,
            "context_length": self.context_length,
            "max_model_len": self.max_model_len,
            "engine_kwargs": self.engine_kwargs,
            "engine_kwargs_from": self.engine_kwargs_from,
            "notes": list(self.notes),
            **({} if self.memory is None else {"memory": self.memory.to_dict()}),
        }


def explain(
    adapter: Adapter,
    conversation: Conversation,
    *,
    policy: MediaPolicy | None = None,
    served: bool = False,
    gpu: Gpu | None = None,
    **overrides: Any,
) -> Explanation:
    """What would be sent to the model for a conversation, and what it costs.

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
    notes: list[str] = []
    if adapter.spec.replaced_by is not None:
        notes.append(
            f"no vLLM version that vlm-run supports serves this model type, which needs {adapter.spec.vllm}: "
            f"use '{adapter.spec.replaced_by}' instead"
        )
    if note := adapter.context_note(**overrides):
        notes.append(note)
    if note := adapter.dtype_note(**overrides):
        if gpu is None:
            notes.append(note)
        else:
            del kwargs["dtype"]  # for this machine's CPU
    if adapter.spec.derived_from:
        notes.append(
            f"no plugin lists this checkpoint: {adapter.plugin.name} derived its spec "
            f"(`vlm-run models --checkpoint {adapter.source}` shows how)"
        )
    tokenizer = _tokenizer(adapter, notes)
    prompt = _render(adapter, conversation, tokenizer)
    images: tuple[ImageCost, ...] = ()
    if conversation.images:
        paged = _with_pages(conversation, policy)
        if len(paged.images) != len(conversation.images):
            prompt = _render(adapter, paged, tokenizer)
        images = _images(adapter, paged, policy, notes)
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
        text_tokens=None if tokenizer is None else _text_tokens(adapter, prompt, tokenizer, len(images)),
        context_length=adapter.spec.context_length,
        max_model_len=kwargs.get("max_model_len") or adapter.spec.context_length,
        engine_kwargs=kwargs,
        engine_kwargs_from=_layers(adapter, kwargs, overrides),
        notes=(),
        memory=None if gpu is None else _memory(adapter, kwargs, gpu, served, notes),
        box_coordinates=adapter.spec.box_coordinates,
        tasks=adapter.spec.tasks,
    )
    return _with_notes(explanation, notes)


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


def _text_tokens(adapter: Adapter, prompt: Prompt, tokenizer: TokenizerFile, images: int) -> int:
    from vlm_run.prompts.tokenize import encode

    # The tokens of each image replace one token.
    return len(encode(prompt, tokenizer, adapter.spec)) - images


def _with_pages(conversation: Conversation, policy: MediaPolicy | None) -> Conversation:
    """The conversation with an image for each page of its documents and for each size such as "640x480"."""
    from vlm_run.media import MediaPolicy  # imports Pillow
    from vlm_run.media.load import locating_errors
    from vlm_run.prompts.documents import with_pages

    policy = policy or MediaPolicy()
    places = iter(enumerate(conversation.image_places()))

    def sized(image: Image) -> Image:
        index, (message, _) = next(places)
        with locating_errors(message, index):
            return replace(image, source=_of_size(image.source, policy))

    return with_pages(conversation.with_images(sized), policy)


def _of_size(source: ImageSource, policy: MediaPolicy) -> ImageSource:
    """An image of the size that the source is; any other source as it is."""
    size = _SIZE.fullmatch(source) if isinstance(source, str) and not os.path.isfile(source) else None
    if size is None:
        return source
    from PIL import Image as PILImage

    width, height = int(size[1]), int(size[2])
    if not 0 < width * height <= policy.max_pixels:
        raise MediaError(
            f"an image cannot have {width} × {height} pixels: 1 to {policy.max_pixels:,} are allowed"
        )
    return PILImage.new("RGB", (width, height))


def _images(
    adapter: Adapter, conversation: Conversation, policy: MediaPolicy | None, notes: list[str]
) -> tuple[ImageCost, ...]:
    from vlm_run.media import load_image  # imports Pillow
    from vlm_run.media.decode import NOTE
    from vlm_run.media.load import locating_errors

    costs = []
    for index, (message, image) in enumerate(conversation.image_places()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MediaWarning)  # the note says it
            loaded = load_image(
                image.source,
                policy,
                page_size=partial(adapter.page_size, bounds=image),
                message_index=message,
                image_index=index,
            )
        if note := loaded.info.get(NOTE):
            notes.append(f"image {index + 1} may be too bright or too dark: {note}")
        with locating_errors(message, index):
            cost = _cost(adapter, loaded, image, notes)
        page = image.source.first if isinstance(image.source, Pages) else None
        costs.append(replace(cost, page=page))
    return tuple(costs)


def _cost(adapter: Adapter, loaded: PILImage.Image, image: Image, notes: list[str]) -> ImageCost:
    seen = adapter.preprocess_image(loaded, image).size
    tokens = None
    try:
        tokens = adapter.count_image_tokens(*seen)
    except UnknownTokenCountError as error:
        notes.append(f"image tokens are not counted: {error.cause}")
    return ImageCost(*loaded.size, resized=adapter.resized(*seen), tokens=tokens)


def _memory(
    adapter: Adapter, kwargs: Mapping[str, Any], gpu: Gpu, served: bool, notes: list[str]
) -> MemoryEstimate:
    from vlm_run.checkpoints.gpu_memory import estimate_memory

    source = str(kwargs.get("model") or adapter.source)
    directory = Path(source) if os.path.isdir(source) else configuration(source)
    if directory is None:
        raise VlmRunError(
            f"the memory of {source} cannot be estimated: its config.json is neither on this machine nor "
            "available from the Hugging Face hub",
            hint="Download the model with `vlm-run pull`, or give its directory with --model.",
        )
    try:
        memory = estimate_memory(
            directory,
            read_json(directory / "config.json"),
            gpu,
            kwargs,
            context_length=adapter.spec.context_length or 4096,
            served=served,
        )
    except ValueError as error:
        raise VlmRunError(f"the memory of {source} cannot be estimated: {error}") from error
    notes.extend(memory.notes)
    if not memory.fits and source not in adapter.spec.quantized and adapter.spec.quantized:
        notes.append(f"there are quantized weights: {', '.join(adapter.spec.quantized)}")
    return memory


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


def _layers(adapter: Adapter, kwargs: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, str]:
    """The layer that set each option; nested options have dotted names."""
    default = _flat(adapter.default_engine_kwargs())
    config = _flat(adapter.config)
    flags = {*_flat(overrides), *_flat(adapter.limits.apply_to({}))}
    throughput = _flat(gpu_engine_kwargs(adapter.spec.architecture, {}, served=True))
    layers = {}
    for name, value in _flat(kwargs).items():
        if name in flags:
            layers[name] = FLAG
        elif name in config and config[name] == value:
            layers[name] = CONFIG
        elif name == "model" and value != adapter.spec.source:
            layers[name] = FLAG
        elif name == "model" or (name in default and default[name] == value):
            layers[name] = PLUGIN
        elif name in throughput:
            layers[name] = THROUGHPUT
        elif name in ("trust_remote_code", "dtype"):
            layers[name] = CORE
        else:
            layers[name] = FLAG  # set by the plugin in response to a limit
    return layers


def _flat(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _with_notes(explanation: Explanation, notes: list[str]) -> Explanation:
    """The explanation with its notes: first what would fail, then what could not be determined."""
    wrong = []
    images = len(explanation.images)
    most = (explanation.engine_kwargs.get("limit_mm_per_prompt") or {}).get("image")
    if isinstance(most, int) and images > most:
        wrong.append(f"{images} images are given, but the engine would accept at most {most} (--max-images)")
    if len(explanation.placeholders) < images:
        wrong.append(f"the prompt has {len(explanation.placeholders)} placeholders for {images} images")
    known = explanation.total_tokens or explanation.image_tokens or explanation.text_tokens or 0
    context = explanation.max_model_len
    if context is not None and known >= context:
        wrong.append(f"the prompt leaves no room for an answer: {known} of {context} tokens")
    return replace(explanation, notes=(*wrong, *dict.fromkeys(notes)))


def _sum(counts: list[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None
