"""Options that several commands have, and what is made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from vlm_run.errors import VlmRunError

if TYPE_CHECKING:
    from vlm_run.adapter import Adapter

MODEL = "Model"
ENGINE = "Engine"

ModelType: TypeAlias = Annotated[
    str | None, typer.Option(help="The model type, in place of MODEL.", rich_help_panel=MODEL)
]
ChatTemplate: TypeAlias = Annotated[
    Path | None, typer.Option(help="Jinja file in place of the model's own.", rich_help_panel=MODEL)
]
InferBackend: TypeAlias = Annotated[str, typer.Option(help="Only vllm.", rich_help_panel=MODEL)]
TrustRemoteCode: TypeAlias = Annotated[
    bool, typer.Option(help="Run code that comes with the weights.", rich_help_panel=MODEL)
]
Config: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.yaml",
        help="Engine options, as for `vllm serve --config`; flags go before them.",
        rich_help_panel=ENGINE,
    ),
]
MaxModelLen: TypeAlias = Annotated[
    int | None, typer.Option(help="Prompt and answer together, in tokens.", rich_help_panel=ENGINE)
]
MaxImages: TypeAlias = Annotated[
    int | None, typer.Option(help="Images in one conversation.", rich_help_panel=ENGINE)
]
MinPixels: TypeAlias = Annotated[
    int | None, typer.Option(help="Enlarge smaller images (Qwen-VL).", rich_help_panel=ENGINE)
]
MaxPixels: TypeAlias = Annotated[
    int | None, typer.Option(help="Shrink larger images (Qwen-VL).", rich_help_panel=ENGINE)
]
TensorParallelSize: TypeAlias = Annotated[
    int | None, typer.Option(help="GPUs to spread the model over.", rich_help_panel=ENGINE)
]
EngineOptions: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE", help="Any option of vLLM's engine; repeatable.", rich_help_panel=ENGINE
    ),
]
AllowPrivateMedia: TypeAlias = Annotated[
    bool, typer.Option(help="Fetch images from private addresses too.", rich_help_panel=ENGINE)
]


def check_backend(name: str) -> None:
    """Raise `VlmRunError` for any backend of ms-swift's but vLLM."""
    if name != "vllm":
        raise VlmRunError(f"unknown --infer-backend '{name}'", hint="vlm-run has one: vllm.")


def name_and_question(words: list[str], model_type: str | None, model: str | None) -> tuple[str, str | None]:
    """The model type (or checkpoint) and the question, from what was typed in which place."""
    rest = list(words)
    name = model_type or (rest.pop(0) if rest else None) or model
    if name is None:
        raise VlmRunError("no model is given", hint="`vlm-run models` lists the model types.")
    if len(rest) > 1:
        raise VlmRunError(f"more than one question is given: {rest[1]!r}", hint="Put the question in quotes.")
    return name, rest[0] if rest else None


def load(
    name: str,
    *,
    checkpoint: str | None,
    chat_template: Path | None,
    config: Path | None,
    **limits: int | None,
) -> Adapter:
    """The adapter that the options of a command ask for.

    Raises:
        VlmRunError: One of them cannot be.
    """
    from pydantic import ValidationError

    from vlm_run.registry import Registry
    from vlm_run.specs import Limits

    try:
        allowed = Limits(**limits)
    except ValidationError as error:
        fault = error.errors()[0]
        where = "".join(f"--{str(place).replace('_', '-')} {fault['input']}: " for place in fault["loc"])
        raise VlmRunError(where + fault["msg"].removeprefix("Value error, ")) from None
    return Registry.load(
        name,
        checkpoint=checkpoint,
        chat_template=chat_template,
        limits=allowed,
        config=_configuration(config) if config else None,
    )


def engine_options(assignments: list[str], **flags: Any) -> dict[str, Any]:
    """NAME=VALUE pairs, and on top of them flags that are not None; a value that is JSON is read as JSON."""
    options: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise VlmRunError(f"--engine {assignment} has no value", hint="Write --engine NAME=VALUE.")
        try:
            options[name.replace("-", "_")] = json.loads(value)
        except ValueError:
            options[name.replace("-", "_")] = value
    return {**options, **{name: value for name, value in flags.items() if value is not None}}


def _configuration(file: Path) -> dict[str, Any]:
    import yaml

    try:
        options = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise VlmRunError(f"--config {file} cannot be read: {reason}") from None
    if not (isinstance(options, dict) and all(isinstance(name, str) for name in options)):
        raise VlmRunError(f"--config {file} is no mapping of engine options", hint="Write NAME: VALUE.")
    return {name.replace("-", "_"): value for name, value in options.items()}
