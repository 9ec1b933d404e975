"""ms-swift's Python functions for inference on vLLM, under their own names.

A script written for `swift.llm` works after its import line is changed:

    from vlm_run.swift import (
        ModelType, get_vllm_engine, get_default_template_type,
        get_template, inference_vllm
    )

Each function is a thin layer over `Registry`, `Adapter` and `Engine`, which do the same with less.
"""

from __future__ import annotations

import atexit
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from vlm_run.discovery import installed_plugins
from vlm_run.engine import Engine
from vlm_run.errors import TemplateError, UnknownModelError
from vlm_run.media import MediaPolicy, convert_to_base64
from vlm_run.registry import Registry
from vlm_run.request import Sampling
from vlm_run.response import Response

__all__ = [
    "GenerationConfig",
    "ModelType",
    "Template",
    "VllmEngine",
    "convert_to_base64",
    "get_default_template_type",
    "get_template",
    "get_vllm_engine",
    "inference_stream_vllm",
    "inference_vllm",
]


class _ModelTypes(type):
    """Looks model types up when they are asked for, so that a plugin's are there once it is installed."""

    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return _model_types()[name]
        except KeyError:
            raise AttributeError(
                f"no installed plugin serves ModelType.{name}; `vlm-run models` lists all", name=name, obj=cls
            ) from None

    def __dir__(cls) -> list[str]:
        return [*super().__dir__(), *_model_types()]


class ModelType(metaclass=_ModelTypes):
    """The model types of all installed plugins as attributes, each a string.

    >>> ModelType.demo_llava
    'demo-llava'
    """

    @classmethod
    def get_model_name_list(cls) -> list[str]:
        """All model types, sorted."""
        return Registry.model_types()


def _model_types() -> dict[str, str]:
    return {_identifier(name): name for name in Registry.model_types()}


def _identifier(model_type: str) -> str:
    return model_type.replace("-", "_").replace(".", "_")


class GenerationConfig(Sampling):
    """Sampling parameters that can be set one by one, as in `transformers.GenerationConfig`.

    The defaults are `Sampling`'s: greedy, and as long an answer as fits. A name or a value that
    is wrong raises `ValueError` where it is set.
    """

    model_config = ConfigDict(frozen=False, validate_assignment=True)

    @property
    def max_new_tokens(self) -> int | None:
        """Most tokens in the answer, under the name that transformers has for `max_tokens`."""
        return self.max_tokens

    @max_new_tokens.setter
    def max_new_tokens(self, value: int | None) -> None:
        self.max_tokens = value


class VllmEngine(Engine):
    """An `Engine` with the attributes that ms-swift's scripts use.

    Attributes:
        model_type: The model type.
        generation_config: Sampling parameters for all calls that bring none of their own.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model_type = self.adapter.spec.model_type
        self.generation_config = GenerationConfig()

    @property
    def hf_tokenizer(self) -> Any:
        """The checkpoint's tokenizer, of transformers."""
        return self.tokenizer


@dataclass(frozen=True, slots=True)
class Template:
    """A chat template, and the system message of requests that bring none."""

    template_type: str
    chat_template: str
    tokenizer: Any = None
    default_system: str | None = None


def get_vllm_engine(
    model_type: str,
    torch_dtype: Any = None,
    *,
    model_id_or_path: str | Path | None = None,
    policy: MediaPolicy | None = None,
    engine_kwargs: Mapping[str, Any] | None = None,
    **options: Any,
) -> VllmEngine:
    """Start vLLM with a model. It ends with the script, or with `shutdown`.

    Args:
        model_type: One of `ModelType`, or a checkpoint folder.
        torch_dtype: A torch dtype or its name; None leaves vLLM's choice.
        model_id_or_path: Where the weights come from instead of the plugin's own source.
        policy: What images may be fetched; see `MediaPolicy`.
        engine_kwargs: Engine options, as ms-swift has them.
        options: Engine options too: `max_model_len`, `tensor_parallel_size`,
            `gpu_memory_utilization`, `limit_mm_per_prompt`, `max_num_seqs` …

    Raises:
        UnknownModelError: No installed plugin serves the model type.
        EngineError: An option is unknown, or vLLM could not start.
    """
    options = {
        **(engine_kwargs or {}),
        **{name: value for name, value in options.items() if value is not None},
    }
    if torch_dtype is not None:
        options["dtype"] = str(torch_dtype).removeprefix("torch.")
    adapter = Registry.load(model_type, checkpoint=model_id_or_path)
    with _without_main():
        engine = VllmEngine(adapter, policy=policy, **options)
    atexit.register(engine.shutdown)
    return engine


def get_default_template_type(model_type: str) -> str:
    """The name of a model type's chat template.

    >>> get_default_template_type("demo-llava")
    'demo-llava'

    Raises:
        UnknownModelError: No installed plugin serves the model type.
    """
    adapter = Registry.load(model_type)
    if _template_files().get(stem := Path(adapter.spec.chat_template).stem) == adapter.spec.chat_template:
        return stem
    return adapter.spec.model_type


def get_template(
    template_type: str, tokenizer: Any = None, default_system: str | None = None, **_: Any
) -> Template:
    """A chat template.

    Args:
        template_type: A name from `get_default_template_type`, a model type, or a Jinja file.
        tokenizer: Taken since ms-swift has it; the engine's own is used.
        default_system: The system message of requests that bring none.

    Raises:
        TemplateError: There is none of this name.
    """
    path = _template_files().get(template_type)
    if path is None and template_type.endswith(".jinja") and Path(template_type).is_file():
        path = template_type
    if path is None:
        try:
            path = Registry.load(template_type).spec.chat_template
        except UnknownModelError:
            known = ", ".join(sorted(_template_files()))
            raise TemplateError(f"there is no template '{template_type}'", hint=f"Known: {known}.") from None
    return Template(template_type, path, tokenizer, default_system)


def inference_vllm(
    llm_engine: VllmEngine,
    template: Template | None,
    request_list: Sequence[Mapping[str, Any]],
    *,
    generation_config: GenerationConfig | None = None,
    use_tqdm: bool = False,
    verbose: bool = False,
    **_: Any,
) -> list[dict[str, Any]]:
    """The answers to requests, in their order.

    Args:
        llm_engine: From `get_vllm_engine`.
        template: From `get_template`; None is the engine's own.
        request_list: Each with `query` and, as needed, `history`, `images` (None for a turn
            without one), `system`; or with `messages`.
        generation_config: In place of the engine's own.
        use_tqdm: Show a progress bar.
        verbose: Print each question and answer.

    Returns:
        For each request a dict with `response` and `history`, which can be passed on. A request
        that cannot be served has an empty `response` and its `error`, and a warning is issued.
    """
    engine, requests = _prepared(llm_engine, template, request_list)
    answers: list[dict[str, Any]] = [{} for _ in requests]
    finished = engine.as_completed(requests, generation_config or llm_engine.generation_config)
    if use_tqdm:
        from rich.progress import track

        finished = iter(track(finished, "Answering", total=len(requests)))
    for index, response in finished:
        answers[index] = _answer(response, request_list[index], index)
    if verbose:
        for request, answer in zip(request_list, answers, strict=True):
            print(f"[PROMPT]{request.get('query', '')}[OUTPUT]{answer['response']}")
    return answers


def inference_stream_vllm(
    llm_engine: VllmEngine,
    template: Template | None,
    request_list: Sequence[Mapping[str, Any]],
    *,
    generation_config: GenerationConfig | None = None,
    **_: Any,
) -> Iterator[list[dict[str, Any] | None]]:
    """As `inference_vllm`, again and again while the answers grow.

    Yields:
        For each request the answer so far, None where none has begun.
    """
    engine, requests = _prepared(llm_engine, template, request_list)
    answers: list[dict[str, Any] | None] = [None] * len(requests)
    for index, delta in engine.stream_all(requests, generation_config or llm_engine.generation_config):
        request = request_list[index]
        if delta.response is not None:
            answers[index] = _answer(delta.response, request, index)
        else:
            text = (answers[index] or {"response": ""})["response"] + delta.text
            earlier = [list(turn) for turn in request.get("history") or []]
            answers[index] = {"response": text, "history": [*earlier, [request.get("query", ""), text]]}
        yield list(answers)


def _prepared(
    llm_engine: VllmEngine, template: Template | None, request_list: Sequence[Mapping[str, Any]]
) -> tuple[Engine, list[dict[str, Any]]]:
    """The engine behind the template, and the requests with the template's system message."""
    requests = [dict(request) for request in request_list]
    if template is None:
        return llm_engine, requests
    if template.default_system is not None:
        for request in requests:
            if "query" in request:
                request.setdefault("system", template.default_system)
    adapter = llm_engine.adapter
    if template.chat_template == adapter.spec.chat_template:
        return llm_engine, requests
    other = Registry.load(
        adapter.spec.model_type,
        checkpoint=adapter.source,
        chat_template=template.chat_template,
        limits=adapter.limits,
    )
    return llm_engine.using(other), requests


def _answer(response: Response, request: Mapping[str, Any], index: int) -> dict[str, Any]:
    if response.error is None:
        return {"response": response.response, "history": response.history}
    warnings.warn(f"request {index + 1} failed: {response.error}", RuntimeWarning, stacklevel=3)
    return {"response": "", "history": request.get("history") or [], "error": str(response.error)}


def _template_files() -> dict[str, str]:
    """The chat templates of all plugins under their files' names; the first of one name has it.

    A checkpoint's own, which is always named chat_template, goes by its model type.
    """
    files: dict[str, str] = {}
    for spec, _ in installed_plugins().models():
        stem = Path(spec.chat_template).stem
        files.setdefault(spec.model_type if stem == "chat_template" else stem, spec.chat_template)
    return files


@contextmanager
def _without_main() -> Iterator[None]:
    """Let processes that start meanwhile not run the caller's script again.

    ms-swift's scripts have no `if __name__ == "__main__":`. A spawned process imports the main
    module by its file, and would start an engine of its own; one of the name `__main__` it leaves.
    """
    main = sys.modules["__main__"]
    kept = getattr(main, "__spec__", None)
    if kept is not None:
        yield
        return
    main.__spec__ = ModuleSpec("__main__", None)
    try:
        yield
    finally:
        main.__spec__ = kept
