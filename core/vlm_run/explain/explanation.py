"""The result of `explain`: a request's prompt, images, tokens and engine options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlm_run.boxes import BoxCoordinates
    from vlm_run.checkpoints.gpu_memory import MemoryEstimate


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
class VideoCost:
    """The frames and the token count of one video.

    Attributes:
        width: Width of the video in pixels, upright.
        height: Height of the video in pixels, upright.
        times: When each frame that the model sees is shown, in seconds.
        fps: Frames that the model sees per second of the video.
        resized: Width and height in pixels to which each frame is scaled.
        tokens: Tokens of the video in the prompt.
    """

    width: int
    height: int
    times: tuple[float, ...]
    fps: float
    resized: tuple[int, int]
    tokens: int


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
    """The prompt that would be sent to the model, and its cost.

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
        text_tokens: Number of tokens that are not of images or videos; None if no tokenizer.json was found.
        context_length: The model's native context length in tokens.
        max_model_len: The engine's context length in tokens; None if vLLM would choose it.
        engine_kwargs: The options with which the engine would start.
        engine_kwargs_from: The layer that set each option; nested options have dotted names.
        notes: What would fail, and what could not be determined.
        memory: What the model would take of a GPU, if one was given.
        box_coordinates: How the model writes the coordinates of boxes; None if that is not documented.
        tasks: The tasks of the model, each with its text in the prompt.
        videos: The frames and the token count of each video.
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
    videos: tuple[VideoCost, ...] = ()

    @property
    def image_tokens(self) -> int | None:
        """Tokens of all images together; None if the count of one is unknown."""
        return _sum([image.tokens for image in self.images])

    @property
    def video_tokens(self) -> int:
        """Tokens of all videos together."""
        return sum(video.tokens for video in self.videos)

    @property
    def total_tokens(self) -> int | None:
        """Tokens of the whole prompt; None if a part of it is unknown."""
        return _sum([self.text_tokens, self.image_tokens, self.video_tokens])

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
            **({"videos": [asdict(video) for video in self.videos]} if self.videos else {}),
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


def _sum(counts: list[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None
