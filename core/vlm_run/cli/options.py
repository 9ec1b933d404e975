"""Options that several commands share, and how they select and configure a model."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from vlm_run.checkpoints.hub_cache import Hub
from vlm_run.cli.completion import complete_model_type
from vlm_run.errors import VlmRunError

if TYPE_CHECKING:
    from vlm_run.adapter import Adapter

MODEL = "Model"
ENGINE = "Engine"

AllowPrivateMedia: TypeAlias = Annotated[
    bool, typer.Option(help="Fetch images from private addresses too.", rich_help_panel=ENGINE)
]
ModelArgument: TypeAlias = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="MODEL",
        help="Model type, or a checkpoint directory.",
        autocompletion=complete_model_type,
    ),
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]
MaxTokens: TypeAlias = Annotated[
    int, typer.Option("--max-tokens", "--max-new-tokens", min=1, help="Maximum number of tokens per answer.")
]
HubOption: TypeAlias = Annotated[
    Hub, typer.Option("--hub", help="Where weights are downloaded from.", rich_help_panel=MODEL)
]
Verbose: TypeAlias = Annotated[bool, typer.Option(help="Show vLLM's log and full tracebacks.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """The options of every command that loads a model.

    Attributes:
        model_type: The model type, in place of the command's first argument.
        model: Where the weights come from instead of the plugin's own source.
        chat_template: A Jinja file in place of the model's own template.
        template_kwargs: Variables of the chat template, each as NAME=VALUE.
        infer_backend: ms-swift's option; only `vllm` is accepted.
        trust_remote_code: Whether code that comes with the weights may run.
        config: A YAML file with engine options.
        max_model_len: Context length in tokens.
        max_images: Maximum number of images in one conversation.
        max_videos: Maximum number of videos in one conversation.
        min_pixels: Minimum area to which images are enlarged.
        max_pixels: Maximum area to which images are shrunk.
        tensor_parallel_size: Number of GPUs that the model is split across.
        engine: Further engine options, each as NAME=VALUE.
    """

    model_type: Annotated[
        str | None,
        typer.Option(
            help="Model type, in place of MODEL.",
            rich_help_panel=MODEL,
            autocompletion=complete_model_type,
        ),
    ] = None
    model: Annotated[
        str | None,
        typer.Option(help="Directory or Hugging Face id of the weights.", rich_help_panel=MODEL),
    ] = None
    chat_template: Annotated[
        Path | None,
        typer.Option(help="Jinja file to use in place of the model's template.", rich_help_panel=MODEL),
    ] = None
    template_kwargs: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Variable of the chat template, such as enable_thinking=false; repeatable.",
            rich_help_panel=MODEL,
        ),
    ] = None
    infer_backend: Annotated[
        str, typer.Option(help="Accepted for ms-swift; only vllm.", rich_help_panel=MODEL)
    ] = "vllm"
    trust_remote_code: Annotated[
        bool, typer.Option(help="Run code that comes with the weights.", rich_help_panel=MODEL)
    ] = False
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.yaml",
            help="Engine options, as for `vllm serve --config`; flags take precedence.",
            rich_help_panel=ENGINE,
        ),
    ] = None
    max_model_len: Annotated[
        int | None,
        typer.Option(help="Context length in tokens, for prompt and answer.", rich_help_panel=ENGINE),
    ] = None
    max_images: Annotated[
        int | None, typer.Option(help="Maximum number of images per conversation.", rich_help_panel=ENGINE)
    ] = None
    max_videos: Annotated[
        int | None, typer.Option(help="Maximum number of videos per conversation.", rich_help_panel=ENGINE)
    ] = None
    min_pixels: Annotated[
        int | None,
        typer.Option(help="Enlarge images to at least this area (Qwen-VL).", rich_help_panel=ENGINE),
    ] = None
    max_pixels: Annotated[
        int | None,
        typer.Option(help="Shrink images to at most this area (Qwen-VL).", rich_help_panel=ENGINE),
    ] = None
    tensor_parallel_size: Annotated[
        int | None, typer.Option(help="Number of GPUs to split the model across.", rich_help_panel=ENGINE)
    ] = None
    engine: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="Any engine option of vLLM; repeatable.", rich_help_panel=ENGINE
        ),
    ] = None

    def name_and_text(self, words: list[str] | None) -> tuple[str, str | None]:
        """Split a command's positional arguments into the model and a text, usually a question.

        Args:
            words: The positional arguments.

        Returns:
            A model type or checkpoint, and the text if there is one.

        Raises:
            VlmRunError: No model is given, or more than one text.
        """
        rest = list(words or [])
        name = self.model_type or (rest.pop(0) if rest else None) or self.model
        if name is None:
            raise VlmRunError("no model is given", hint="`vlm-run models` lists the model types.")
        if len(rest) > 1:
            raise VlmRunError(
                f"more than one question is given: {rest[1]!r}", hint="Put the question in quotes."
            )
        return name, rest[0] if rest else None

    def name_alone(self, words: list[str] | None) -> str:
        """Return the model that a command's positional arguments name; no text may follow.

        Raises:
            VlmRunError: No model is given, or something else follows.
        """
        name, surplus = self.name_and_text(words)
        if surplus is not None:
            raise VlmRunError(
                f"unexpected argument '{surplus}'", hint="`serve` takes flags for vLLM after `--`."
            )
        return name

    def load(self, name: str, hub: Hub = "huggingface") -> Adapter:
        """Load the adapter for a model type or checkpoint; from ModelScope, its weights are downloaded.

        Raises:
            VlmRunError: An option has an invalid value, or no plugin serves the model.
        """
        if self.infer_backend != "vllm":
            raise VlmRunError(
                f"unknown --infer-backend '{self.infer_backend}'", hint="vlm-run supports vllm only."
            )
        from pydantic import ValidationError

        from vlm_run.registry import Registry
        from vlm_run.specs import Limits

        try:
            limits = Limits(
                max_images=self.max_images,
                max_videos=self.max_videos,
                max_model_len=self.max_model_len,
                min_pixels=self.min_pixels,
                max_pixels=self.max_pixels,
            )
        except ValidationError as error:
            fault = error.errors()[0]
            option = "".join(f"--{str(name).replace('_', '-')} {fault['input']}: " for name in fault["loc"])
            raise VlmRunError(option + fault["msg"].removeprefix("Value error, ")) from None
        return Registry.load(
            name,
            checkpoint=self.model,
            chat_template=self.chat_template,
            template_kwargs=_parse_assignments(self.template_kwargs or [], "--template-kwargs"),
            limits=limits,
            config=_read_config(self.config) if self.config else None,
            hub=hub,
        )

    def engine_options(self) -> dict[str, Any]:
        """Return the engine options: those of `--engine`, then the flags that have one of their own."""
        flags = {
            "tensor_parallel_size": self.tensor_parallel_size,
            "trust_remote_code": self.trust_remote_code or None,
        }
        return {
            **_engine_options(self.engine or []),
            **{name: value for name, value in flags.items() if value is not None},
        }


def expand_option_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter of a command that is annotated with a dataclass by the dataclass's fields.

    Typer has no groups of options that several commands share. The command receives the dataclass.
    """
    own = inspect.signature(command, eval_str=True)
    groups: dict[str, tuple[Callable[..., Any], list[str]]] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in own.parameters.values():
        if not is_dataclass(parameter.annotation):
            parameters.append(parameter)
            continue
        group: Callable[..., Any] = parameter.annotation  # type: ignore[assignment]
        fields = inspect.signature(group, eval_str=True).parameters
        groups[parameter.name] = (group, list(fields))
        parameters += fields.values()
    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        grouped = {
            name: group(**{field: given.pop(field) for field in fields})
            for name, (group, fields) in groups.items()
        }
        command(**grouped, **given)

    # Typer reads a command's options from both.
    run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _engine_options(assignments: list[str]) -> dict[str, Any]:
    options = _parse_assignments(assignments, "--engine")
    return {name.replace("-", "_"): value for name, value in options.items()}


def _parse_assignments(assignments: list[str], option: str) -> dict[str, Any]:
    """Parse NAME=VALUE pairs; a value that is valid JSON is read as JSON, any other as text."""
    options: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise VlmRunError(f"{option} {assignment} has no value", hint=f"Write {option} NAME=VALUE.")
        try:
            options[name] = json.loads(value)
        except (ValueError, RecursionError):
            options[name] = value
    return options


def _read_config(file: Path) -> dict[str, Any]:
    import yaml

    try:
        options = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise VlmRunError(f"--config {file} cannot be read: {reason}") from None
    if not (isinstance(options, dict) and all(isinstance(name, str) for name in options)):
        raise VlmRunError(f"--config {file} is not a mapping of engine options", hint="Write NAME: VALUE.")
    return {name.replace("-", "_"): value for name, value in options.items()}
