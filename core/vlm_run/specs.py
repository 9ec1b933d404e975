"""A model type as data: what a plugin states about each model that it serves."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SerializeAsAny, model_validator

from vlm_run.boxes.coordinates import BoxCoordinates
from vlm_run.video import VideoFacts
from vlm_run.vision import VisionFacts

_MODEL_TYPE = re.compile(r"[a-z0-9]+(?:[-_.][a-z0-9]+)*")


def canonical(model_type: str) -> str:
    """The form under which model types are compared: `_` and `-` are interchangeable.

    >>> canonical("LLaVA1_6_mistral-7b-instruct")
    'llava1-6-mistral-7b-instruct'
    """
    return model_type.strip().lower().replace("_", "-")


def _plain(name: str) -> str:
    return canonical(name).replace(".", "-")


def _check_model_type(value: str) -> str:
    if not _MODEL_TYPE.fullmatch(value):
        raise ValueError("must be lower-case letters and digits joined by single '-', '_' or '.'")
    return value


def _check_tasks(tasks: Mapping[str, str]) -> Mapping[str, str]:
    for name, text in tasks.items():
        if not name.strip() or not text.strip():
            raise ValueError("needs a name and a text for each task")
    return tasks


def _check_quantized(quantized: Mapping[str, Any]) -> Mapping[str, Any]:
    for repository in quantized:
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
            raise ValueError(f"has '{repository}', which is not a repository: write it as owner/name")
    return quantized


def _check_version_range(value: str) -> str:
    try:
        SpecifierSet(value)
    except InvalidSpecifier as error:
        raise ValueError(f"is not a version range such as '>=0.24,<0.34': {error}") from None
    return value


class ModelSpec(BaseModel):
    """One model type: where its weights are, how its prompt is written, how many tokens its images take.

    The four fields without a default are enough to run a model; `vision` adds image token counts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    model_type: Annotated[str, AfterValidator(_check_model_type)]
    """The name users type, in ms-swift's spelling where ms-swift has one."""
    architecture: str
    """The vLLM architecture, as in `architectures` of the checkpoint's `config.json`."""
    chat_template: str
    """A Jinja file in the Hugging Face dialect, relative to the plugin's package directory, or a JSON file
    with such a template under `chat_template`."""
    image_placeholder: str
    """The string that represents an image in the prompt; `{index}` becomes its number, counted from 1."""

    video_placeholder: str | None = None
    """The string that represents a video in the prompt; needed with `video`."""
    image_token: str | None = None
    """The token that replaces the placeholder in the token ids, if the placeholder is plain text to the
    tokenizer. The text between images is then tokenized piece by piece, each piece with its own BOS,
    as the processors of such checkpoints do (Phi-3-vision)."""

    family: str = ""
    """The family the model type is listed under; the plugin's name if empty."""
    hf_id: str | None = None
    """Repository on the Hugging Face hub."""
    modelscope_id: str | None = None
    """Repository on ModelScope."""
    quantized: Annotated[Mapping[str, Mapping[str, Any]], AfterValidator(_check_quantized)] = Field(
        default_factory=dict
    )
    """Repositories with quantized weights of the model (AWQ, GPTQ, FP8), each with the engine options that
    differ from `engine_kwargs`, for example fewer GPUs. Users name a repository with or without its owner."""
    checkpoint: str | None = None
    """A checkpoint directory that the plugin ships, relative to its package directory."""
    config_match: Mapping[str, Any] = Field(default_factory=dict)
    """Dotted keys of `config.json` (`rope_scaling.long_factor.0`) and their values, which distinguish this
    model type from others of the same architecture when a checkpoint directory is given."""
    template_match: str | None = None
    """A string that the checkpoint's own chat template must contain, if other model types have the same
    `config.json` but not this string."""

    vllm: Annotated[str, AfterValidator(_check_version_range)] = ">=0.24,<0.34"
    """The vLLM versions that serve the model, as a PEP 440 version range."""
    replaced_by: str | None = None
    """The model type to use instead, if none of the vLLM versions that vlm-run supports serves this one
    any more. It is listed and explained, but refuses to start."""
    context_length: int | None = None
    """Native context length in tokens."""
    engine_kwargs: Mapping[str, Any] = Field(default_factory=dict)
    """Engine options that start the model on one 80 GB GPU, in `vllm.EngineArgs`' names."""
    sampling_params: Mapping[str, Any] = Field(default_factory=dict)
    """Fields of vLLM's `SamplingParams` for every request, other than those of `Sampling`:
    `skip_special_tokens`, or `extra_args` for a logits processor in `engine_kwargs`. What a client of the
    server sets to another value than vLLM's default takes precedence."""
    max_images: int | None = Field(default=None, ge=0)
    """Maximum number of images in one conversation; None if only the context length limits it."""

    tasks: Annotated[Mapping[str, str], AfterValidator(_check_tasks)] = Field(default_factory=dict)
    """Tasks that the model was trained for, by the name that requests give, each with its text in the
    prompt, for example `{"ocr": "Free OCR."}`. Control tokens in the text are control tokens."""

    vision: SerializeAsAny[VisionFacts] | None = None
    """How images become image tokens; None if the plugin implements `count_image_tokens`."""
    video: SerializeAsAny[VideoFacts] | None = None
    """Which frames of a video the model sees, and how they become tokens; None if it takes no videos."""
    box_coordinates: BoxCoordinates | None = None
    """How the model writes the coordinates of boxes in its answers; None if that is not documented."""
    control_tokens: tuple[str, ...] = ()
    """Strings that the tokenizer turns into special tokens. In messages they stay plain text. The engine
    adds the special tokens of the tokenizer in use."""
    stop: tuple[str, ...] = ()
    """Strings or special tokens at which an answer ends, in addition to the checkpoint's EOS."""
    reasoning_end: str | None = None
    """The string that ends the reasoning in an answer, for example `</think>`. Of an answer in an earlier
    turn, only the text after it goes into the prompt, as the chat templates of such models do."""
    bos_token: str = ""
    """The value of `bos_token` in the chat template."""
    eos_token: str = ""
    """The value of `eos_token` in the chat template."""
    template_kwargs: Mapping[str, Any] = Field(default_factory=dict)
    """Further variables of the chat template, for example `enable_thinking`."""
    template_content: Literal["parts", "text"] = "parts"
    """What the chat template expects as the content of a message: a list of text and image parts, or text
    that begins with the placeholders of the images, one per line."""
    derived_from: Mapping[str, str] = Field(default_factory=dict)
    """For a spec that was derived from a checkpoint: the source of each field. Empty for a listed model
    type."""

    @model_validator(mode="after")
    def _check_video(self) -> Self:
        if (self.video is None) != (self.video_placeholder is None):
            raise ValueError("needs both video and video_placeholder, or neither")
        return self

    def quantized_as(self, name: str) -> str | None:
        """The repository in `quantized` that a name refers to, with or without its owner; None if none.

        `.`, `_` and `-` are interchangeable in names, since ms-swift writes `qwen2_5-vl-7b-instruct-awq`.
        """
        wanted = _plain(name)
        for repository in self.quantized:
            if wanted in (_plain(repository), _plain(repository.partition("/")[2])):
                return repository
        return None

    def with_quantized(self, checkpoint: str) -> Self:
        """The spec with the engine options of a quantized checkpoint, if `checkpoint` is one of its own."""
        repository = self.quantized_as(checkpoint)
        if repository is None:
            return self
        return self.model_copy(update={"engine_kwargs": {**self.engine_kwargs, **self.quantized[repository]}})

    @property
    def source(self) -> str:
        """Where the weights are loaded from by default."""
        return self.checkpoint or self.hf_id or self.model_type


class Limits(BaseModel):
    """A user's limits on one request; None keeps the plugin's default."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    max_images: int | None = Field(default=None, ge=0)
    """Maximum number of images in one conversation."""
    max_videos: int | None = Field(default=None, ge=0)
    """Maximum number of videos in one conversation. The plugins' default is 0, since an engine that takes
    videos reserves memory for them."""
    max_model_len: int | None = Field(default=None, ge=1)
    """Maximum length of prompt and answer together, in tokens."""
    min_pixels: int | None = Field(default=None, ge=1)
    """Minimum image area in pixels, for models that resize images by area."""
    max_pixels: int | None = Field(default=None, ge=1)
    """Maximum image area in pixels, for models that resize images by area."""

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.min_pixels is not None and self.max_pixels is not None and self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels, {self.min_pixels}, is greater than max_pixels, {self.max_pixels}")
        return self

    def apply_to(self, engine_kwargs: Mapping[str, Any], vision: VisionFacts | None = None) -> dict[str, Any]:
        """Engine options with these limits applied.

        Args:
            engine_kwargs: The options.
            vision: How the model bounds the area of images, if it has options of its own for that.

        Raises:
            MediaError: The limits bound the area of images, which the model does not support.
        """
        kwargs = dict(engine_kwargs)
        most = {"image": self.max_images, "video": self.max_videos}
        if given := {kind: count for kind, count in most.items() if count is not None}:
            kwargs["limit_mm_per_prompt"] = {**(kwargs.get("limit_mm_per_prompt") or {}), **given}
        if self.max_model_len is not None:
            kwargs["max_model_len"] = self.max_model_len
        bounds: Mapping[str, Any] = self.pixel_bounds
        if bounds and vision is not None:
            bounds = vision.bounded(self.min_pixels, self.max_pixels).processor_options() or bounds
        if bounds:
            kwargs["mm_processor_kwargs"] = {**(kwargs.get("mm_processor_kwargs") or {}), **bounds}
        return kwargs

    @property
    def pixel_bounds(self) -> dict[str, int]:
        """`min_pixels` and `max_pixels`, as far as they are set."""
        return self.model_dump(include={"min_pixels", "max_pixels"}, exclude_none=True)
