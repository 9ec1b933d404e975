"""A model spec from `config.json`, the tokenizer's files and the chat template of a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlm_run.boxes import BoxCoordinates
from vlm_run.checkpoints.chat_template_file import find_chat_template
from vlm_run.checkpoints.files import lookup, read_json
from vlm_run.checkpoints.special_tokens import SpecialTokens, special_tokens
from vlm_run.derivation.placeholder import placeholder_of
from vlm_run.derivation.processor_facts import ProcessorFacts
from vlm_run.errors import UnknownModelError
from vlm_run.specs import ModelSpec

# Where configurations keep the language model's context length, in the order in which they are read.
_CONTEXT_KEYS = (
    "text_config.max_position_embeddings",
    "thinker_config.text_config.max_position_embeddings",
    "llm_config.max_position_embeddings",
    "language_config.max_position_embeddings",
    "max_position_embeddings",
)
# Modalities other than images are off: vlm-run passes none.
_ENGINE_KWARGS = {"limit_mm_per_prompt": {"video": 0, "audio": 0}}

# Architectures of one family only, which documents its coordinates.
_INTERNVL = (1000, "InternVL's documentation: Chat Data Format, Grounding / Detection Data")
_BOX_COORDINATES = {
    "DeepseekOCRForCausalLM": (999, "run_dpsk_ocr_image.py of deepseek-ai/DeepSeek-OCR"),
    "DeepseekVLV2ForCausalLM": (999, "parse_ref_bbox in the demo of deepseek-ai/DeepSeek-VL2"),
    "InternVLChatModel": _INTERNVL,
    "InternVLForConditionalGeneration": _INTERNVL,
}


def derive(config: Mapping[str, Any], directory: Path, placeholder: str | None = None) -> ModelSpec:
    """The spec of a checkpoint, with the source of each field in `derived_from`.

    Only files are read; no model library is imported. `vision` counts image tokens with the
    checkpoint's own processor when it is first asked.

    Args:
        config: The checkpoint's `config.json`.
        directory: The checkpoint directory.
        placeholder: The string that represents an image in the prompt, for a chat template that does
            not write one itself.

    Raises:
        UnknownModelError: `config.json` names no architecture, or a file cannot be read.
        PlaceholderUnknownError: The chat template writes nothing for an image, and `placeholder` is
            None.
    """
    architectures = config.get("architectures") or []
    if not architectures:
        raise UnknownModelError(f"{directory / 'config.json'} names no architecture")
    try:
        tokens = special_tokens(directory)
        template = find_chat_template(directory)
        generation = read_json(directory / "generation_config.json")
    except ValueError as error:
        raise UnknownModelError(str(error)) from None
    found = placeholder_of(template, tokens, placeholder)
    context = next(((key, value) for key in _CONTEXT_KEYS if (value := lookup(config, key))), None)
    stop, stop_source = _stop(config, generation, tokens)
    boxes, boxes_source = _BOX_COORDINATES.get(architectures[0], (None, "not known"))
    sources = {
        "architecture": "config.json: architectures",
        "chat_template": template.name if template else "not found",
        "image_placeholder": found.source,
        "template_content": found.source,
        "context_length": f"config.json: {context[0]}" if context else "not found: vLLM chooses it",
        "control_tokens": tokens.source,
        "bos_token": tokens.names_source,
        "eos_token": tokens.names_source,
        "stop": stop_source,
        "vision": "the checkpoint's processor, which is run on a blank image of each size",
        "box_coordinates": boxes_source,
        "engine_kwargs": "other modalities than images are off",
    }
    return ModelSpec(
        model_type=_model_type(config, directory),
        architecture=architectures[0],
        chat_template=str(template or directory / "chat_template.jinja"),
        image_placeholder=found.text,
        template_content=found.content,
        template_kwargs=tokens.names,
        checkpoint=str(directory),
        context_length=context[1] if context else None,
        control_tokens=tokens.all,
        bos_token=tokens.names.get("bos_token", ""),
        eos_token=tokens.names.get("eos_token", ""),
        stop=stop,
        engine_kwargs=_ENGINE_KWARGS,
        box_coordinates=None if boxes is None else BoxCoordinates(maximum=boxes),
        vision=ProcessorFacts(checkpoint=str(directory), placeholder=found.text.replace("{index}", "1")),
        derived_from=sources,
    )


def takes_images(config: Mapping[str, Any], directory: Path) -> bool:
    """Whether a model takes images, by its files: its checkpoint has a processor or a vision part."""
    files = ("preprocessor_config.json", "processor_config.json")
    return any((directory / name).is_file() for name in files) or any(
        word in key for key in config for word in ("vision", "visual", "image")
    )


def _model_type(config: Mapping[str, Any], directory: Path) -> str:
    """A name for the model: that of its repository or directory, in the form of a model type."""
    cached = re.search(r"models--.+?--([^/]+)/snapshots/", directory.as_posix())
    name = cached[1] if cached else directory.resolve().name
    form = re.sub(r"[-_.]*[^a-z0-9]+[-_.]*", "-", name.lower()).strip("-")
    return form or str(config.get("model_type") or "checkpoint").replace("_", "-")


def _stop(
    config: Mapping[str, Any], generation: Mapping[str, Any], tokens: SpecialTokens
) -> tuple[tuple[str, ...], str]:
    """The end tokens of the checkpoint as strings, and the file that names them."""
    for source, ids in (
        ("generation_config.json: eos_token_id", generation.get("eos_token_id")),
        ("config.json: eos_token_id", config.get("eos_token_id")),
    ):
        listed = ids if isinstance(ids, list) else [ids]
        if named := tuple(
            tokens.by_id[each] for each in listed if isinstance(each, int) and each in tokens.by_id
        ):
            return named, source
    return (), "not found: the tokenizer's EOS ends an answer"
