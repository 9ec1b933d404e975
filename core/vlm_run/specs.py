"""A model type as data: what a plugin says about each model it serves."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Self

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SerializeAsAny, model_validator

from vlm_run.vision import VisionFacts

_MODEL_TYPE = re.compile(r"[a-z0-9]+(?:[-_.][a-z0-9]+)*")


def canonical(model_type: str) -> str:
    """The form under which model types are compared: `_` and `-` are interchangeable.

    >>> canonical("LLaVA1_6_mistral-7b-instruct")
    'llava1-6-mistral-7b-instruct'
    """
    return model_type.strip().lower().replace("_", "-")


def _check_model_type(value: str) -> str:
    if not _MODEL_TYPE.fullmatch(value):
        raise ValueError("must be lower-case letters and digits joined by single '-', '_' or '.'")
    return value


def _check_version_range(value: str) -> str:
    try:
        SpecifierSet(value)
    except InvalidSpecifier as error:
        raise ValueError(f"is no version range such as '>=0.24,<0.34': {error}") from None
    return value


class ModelSpec(BaseModel):
    """One model type: where its weights are, how its prompt reads, what its pictures cost.

    The four fields without a default are enough for a model whose prompt takes no pictures
    into account beyond a placeholder; `vision` adds image token counts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_type: Annotated[str, AfterValidator(_check_model_type)]
    """The name users type, in ms-swift's spelling where ms-swift has one."""
    architecture: str
    """The vLLM architecture, as in `architectures` of the checkpoint's `config.json`."""
    chat_template: str
    """A Jinja file in the Hugging Face dialect, relative to the plugin's package folder."""
    image_placeholder: str
    """What stands for a picture in the prompt; `{index}` becomes its number, from 1 on."""

    image_token: str | None = None
    """The token that takes the placeholder's place in the token ids, where the placeholder is only
    text to the tokenizer. The text between images is then tokenized piece by piece, each as a
    prompt of its own, BOS included, as such checkpoints' processors do (Phi-3-vision)."""

    family: str = ""
    """The family the model type is listed under; the plugin's name if empty."""
    hf_id: str | None = None
    """Repository on the Hugging Face hub."""
    modelscope_id: str | None = None
    """Repository on ModelScope."""
    checkpoint: str | None = None
    """A checkpoint folder that the plugin ships, relative to its package folder."""
    config_match: Mapping[str, Any] = Field(default_factory=dict)
    """Dotted keys of `config.json` (`rope_scaling.long_factor.0`) and their values, which tell this
    model type from others of the same architecture when a checkpoint folder is given."""
    template_match: str | None = None
    """A text that the checkpoint's own chat template must have, where other model types have the
    same `config.json` and not this text."""

    vllm: Annotated[str, AfterValidator(_check_version_range)] = ">=0.24,<0.34"
    """The vLLM versions that serve the model, as a PEP 440 version range."""
    replaced_by: str | None = None
    """The model type to use instead, where no vLLM that vlm-run works with serves this one any
    more. It is listed and explained, and refused when it is started."""
    context_length: int | None = None
    """Native context length in tokens."""
    engine_kwargs: Mapping[str, Any] = Field(default_factory=dict)
    """Engine options that start the model on one 80 GB GPU, in `vllm.EngineArgs`' names."""
    max_images: int | None = Field(default=None, ge=0)
    """Most pictures in one conversation; None where only the context length bounds it."""

    vision: SerializeAsAny[VisionFacts] | None = None
    """How pictures become image tokens; None where the plugin implements `count_image_tokens`."""
    control_tokens: tuple[str, ...] = ()
    """Strings that the tokenizer would turn into special tokens. In what a user wrote they stay
    text. The engine adds those it finds in the tokenizer itself."""
    stop: tuple[str, ...] = ()
    """Strings or special tokens at which an answer ends, beside the checkpoint's own EOS."""
    reasoning_end: str | None = None
    """Where the reasoning in an answer ends, as in `</think>`. Of answers in earlier turns only what
    follows it goes into the prompt, as the templates of such models have it."""
    bos_token: str = ""
    """What the template's `bos_token` stands for."""
    eos_token: str = ""
    """What the template's `eos_token` stands for."""

    @property
    def source(self) -> str:
        """Where the weights come from unless the user says otherwise."""
        return self.checkpoint or self.hf_id or self.model_type


class Limits(BaseModel):
    """What a user allows one request; each None leaves the plugin's default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_images: int | None = Field(default=None, ge=0)
    """Pictures in one conversation."""
    max_model_len: int | None = Field(default=None, ge=1)
    """Prompt and answer together, in tokens."""
    min_pixels: int | None = Field(default=None, ge=1)
    """Smallest picture area, for models that resize by area."""
    max_pixels: int | None = Field(default=None, ge=1)
    """Largest picture area, for models that resize by area."""

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.min_pixels is not None and self.max_pixels is not None and self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels, {self.min_pixels}, is more than max_pixels, {self.max_pixels}")
        return self

    def apply_to(self, engine_kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Engine options with these limits on top."""
        kwargs = dict(engine_kwargs)
        if self.max_images is not None:
            kwargs["limit_mm_per_prompt"] = {
                **(kwargs.get("limit_mm_per_prompt") or {}),
                "image": self.max_images,
            }
        if self.max_model_len is not None:
            kwargs["max_model_len"] = self.max_model_len
        if bounds := self.pixel_bounds:
            kwargs["mm_processor_kwargs"] = {**(kwargs.get("mm_processor_kwargs") or {}), **bounds}
        return kwargs

    @property
    def pixel_bounds(self) -> dict[str, int]:
        """Those of `min_pixels` and `max_pixels` that are set."""
        return self.model_dump(include={"min_pixels", "max_pixels"}, exclude_none=True)
