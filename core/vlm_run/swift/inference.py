"""`get_vllm_engine`, `inference_vllm` and what goes with them."""

from __future__ import annotations

import atexit
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, Self

from pydantic import ConfigDict, model_validator

from vlm_run.engine import Engine
from vlm_run.engine.many_streams import stream_all
from vlm_run.engine.other_adapter import with_adapter
from vlm_run.errors import EngineError, TemplateError, UnknownModelError
from vlm_run.media import MediaPolicy
from vlm_run.plugins.discovery import installed_plugins
from vlm_run.registry import Registry
from vlm_run.request import Sampling
from vlm_run.response import Response


class GenerationConfig(Sampling):
    """Sampling parameters that can be set one by one, as in `transformers.GenerationConfig`.

    The defaults are `Sampling`'s: greedy, and as long an answer as fits. A name or a value that
    is wrong raises `ValueError` where it is set; values that exclude each other, when it is used.
    """

    model_config = ConfigDict(frozen=False, validate_assignment=True)

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        return self  # in whatever order they are set

    def as_sampling(self) -> Sampling:
        """The parameters as they are now.

        Raises:
            RequestError: Two of them exclude each other.
        """
        return Sampling.parse(self.model_dump())

    @property
    def max_new_tokens(self) -> int | None:
        """Most tokens in the answer, under the name that transformers has for `max_tokens`."""
        return self.max_tokens

    @max_new_tokens.setter
    def max_new_tokens(self, value: int | None) -> None:
        self.max_tokens = value

    @property
    def do_sample(self) -> bool:
        """Whether answers are drawn at random: False is temperature 0, True leaves one or makes it 1."""
        return self.temperature > 0

    @do_sample.setter
    def do_sample(self, value: bool) -> None:
        if value != self.do_sample:
            self.temperature = float(value)


VllmGenerationConfig = GenerationConfig
"""Under ms-swift's name."""


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
    use_async: bool = False,
    **options: Any,
) -> VllmEngine:
    """Start vLLM with a model. It ends with the script, or with `shutdown`.

    Args:
        model_type: One of `ModelType`, or a checkpoint folder.
        torch_dtype: A torch dtype or its name; None leaves vLLM's choice.
        model_id_or_path: Where the weights come from instead of the plugin's own source.
        policy: What images may be fetched; see `MediaPolicy`.
        engine_kwargs: Engine options, as ms-swift has them.
        use_async: Without effect: every engine has `ainfer` and `astream` too.
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
    template_type: str,
    tokenizer: Any = None,
    default_system: str | None = None,
    max_length: int | None = None,
    truncation_strategy: str = "delete",
    *,
    model: Any = None,
) -> Template:
    """A chat template.

    Args:
        template_type: A name from `get_default_template_type`, a model type, or a Jinja file.
        tokenizer: Without effect, as `model`: the engine's own is used.
        default_system: The system message of requests that bring none.
        max_length: Without effect, as `truncation_strategy`: a prompt is never cut. One that is
            longer than the engine's `max_model_len` fails alone.
        model: See `tokenizer`.
        truncation_strategy: See `max_length`.

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
    generation_info: dict[str, Any] | None = None,
    max_batch_size: int | None = None,
    lora_request: Any = None,
    use_tqdm: bool = False,
    verbose: bool = False,
    prompt_prefix: str = "[PROMPT]",
    output_prefix: str = "[OUTPUT]",
) -> list[dict[str, Any]]:
    """The answers to requests, in their order.

    Args:
        llm_engine: From `get_vllm_engine`.
        template: From `get_template`; None is the engine's own.
        request_list: Each with `query` and, as needed, `history`, `images` (None for a turn
            without one), `system`; or with `messages`.
        generation_config: In place of the engine's own.
        generation_info: Is filled with `num_samples`, `num_prompt_tokens`, `num_generated_tokens`,
            `runtime` in seconds, `samples/s` and `tokens/s`, of the requests that were answered.
        max_batch_size: Without effect: the engine takes requests as it has room for them.
        lora_request: Is refused unless None.
        use_tqdm: Show a progress bar.
        verbose: Print each question and answer.
        prompt_prefix: Printed before a question.
        output_prefix: Printed before an answer.

    Returns:
        For each request a dict with `response` and `history`, which can be passed on. A request
        that cannot be served has an empty `response` and its `error`, and a warning is issued.

    Raises:
        RequestError: Sampling parameters exclude each other.
        EngineError: There is a `lora_request`, or the engine has died.
    """
    _refuse(lora_request)
    engine, requests = _prepared(llm_engine, template, request_list)
    info = _Info(generation_info)
    answers: list[dict[str, Any]] = [{} for _ in requests]
    sampling = (generation_config or llm_engine.generation_config).as_sampling()
    finished = engine.as_completed(requests, sampling)
    if use_tqdm:
        from rich.progress import track

        finished = iter(track(finished, "Answering", total=len(requests)))
    for index, response in finished:
        answers[index] = _answer(response, request_list[index], index)
        info.add(response)
    if verbose:
        for request, answer in zip(request_list, answers, strict=True):
            print(f"{prompt_prefix}{request.get('query', '')}{output_prefix}{answer['response']}")
    return answers


def inference_stream_vllm(
    llm_engine: VllmEngine,
    template: Template | None,
    request_list: Sequence[Mapping[str, Any]],
    *,
    generation_config: GenerationConfig | None = None,
    generation_info: dict[str, Any] | None = None,
    lora_request: Any = None,
    use_tqdm: bool = False,
    flush_steps: int | None = None,
) -> Iterator[list[dict[str, Any] | None]]:
    """As `inference_vllm`, again and again while the answers grow.

    Args:
        llm_engine: As for `inference_vllm`, and so on.
        template: From `get_template`.
        request_list: The requests.
        generation_config: In place of the engine's own.
        generation_info: Is filled as answers end.
        lora_request: Is refused unless None.
        use_tqdm: Without effect, as `flush_steps`: each piece is handed on as it comes.
        flush_steps: See `use_tqdm`.

    Yields:
        For each request the answer so far, None where none has begun.
    """
    _refuse(lora_request)
    engine, requests = _prepared(llm_engine, template, request_list)
    info = _Info(generation_info)
    answers: list[dict[str, Any] | None] = [None] * len(requests)
    sampling = (generation_config or llm_engine.generation_config).as_sampling()
    for index, delta in stream_all(engine, requests, sampling):
        request = request_list[index]
        if delta.response is not None:
            answers[index] = _answer(delta.response, request, index)
            info.add(delta.response)
        else:
            text = (answers[index] or {"response": ""})["response"] + delta.text
            earlier = [list(turn) for turn in request.get("history") or []]
            answers[index] = {"response": text, "history": [*earlier, [request.get("query", ""), text]]}
        yield list(answers)


class _Info:
    """Counts what is answered into the dict that a caller of ms-swift's functions passes."""

    def __init__(self, given: dict[str, Any] | None) -> None:
        self._info = {} if given is None else given
        self._info.clear()
        self._info.update(num_prompt_tokens=0, num_generated_tokens=0, num_samples=0)
        self._started = time.perf_counter()

    def add(self, response: Response) -> None:
        """Count one response, unless it failed."""
        info, seconds = self._info, time.perf_counter() - self._started
        info["num_samples"] += response.error is None
        info["num_prompt_tokens"] += response.usage.prompt_tokens
        info["num_generated_tokens"] += response.usage.completion_tokens
        info["runtime"] = seconds
        info["samples/s"] = info["num_samples"] / seconds
        info["tokens/s"] = info["num_generated_tokens"] / seconds


def _refuse(lora_request: Any) -> None:
    if lora_request is not None:
        hint = "Merge the adapter into the weights, and give their folder as model_id_or_path."
        raise EngineError("lora_request is not served", hint=hint)


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
    return with_adapter(llm_engine, other), requests


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
