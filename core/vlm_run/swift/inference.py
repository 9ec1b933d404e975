"""`inference_vllm` and `inference_stream_vllm`."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlm_run.engine import Engine
from vlm_run.engine.many_streams import stream_all
from vlm_run.engine.other_adapter import with_adapter
from vlm_run.errors import EngineError
from vlm_run.registry import Registry
from vlm_run.response import Response
from vlm_run.swift.generation_config import GenerationConfig
from vlm_run.swift.template import Template
from vlm_run.swift.vllm_engine import VllmEngine


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
    """Answer requests.

    Args:
        llm_engine: An engine from `get_vllm_engine`.
        template: A template from `get_template`; None for the engine's own.
        request_list: Requests with `query` and optionally `history`, `images` (None for a turn
            without one) and `system`; or with `messages`.
        generation_config: Sampling parameters in place of the engine's own.
        generation_info: A dict to fill with `num_samples`, `num_prompt_tokens`,
            `num_generated_tokens`, `runtime` in seconds, `samples/s` and `tokens/s`, all of the
            requests that were answered.
        max_batch_size: Ignored; the engine schedules requests as it has room for them.
        lora_request: The LoRA adapter of all requests, as vLLM's `LoRARequest`. The engine needs
            `enable_lora=True`.
        use_tqdm: Whether to show a progress bar.
        verbose: Whether to print each question and answer.
        prompt_prefix: Printed before a question.
        output_prefix: Printed before an answer.

    Returns:
        A dict for each request, in order, with its `response` and the `history` for a next turn. A
        request that cannot be served has an empty `response` and an `error`, and raises a warning.

    Raises:
        RequestError: Sampling parameters exclude each other.
        EngineError: The adapter cannot be loaded, or the engine has died.
    """
    engine, requests = _prepare(llm_engine, template, request_list, lora_request)
    info = _Counter(generation_info)
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
            print(f"{prompt_prefix}{_field(request, 'query', '')}{output_prefix}{answer['response']}")
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
    """Answer requests like `inference_vllm`, and yield the answers while they are generated.

    Args:
        llm_engine: An engine from `get_vllm_engine`.
        template: A template from `get_template`; None for the engine's own.
        request_list: The requests.
        generation_config: Sampling parameters in place of the engine's own.
        generation_info: A dict to fill as answers are finished.
        lora_request: As for `inference_vllm`.
        use_tqdm: Ignored.
        flush_steps: Ignored; each piece of an answer is yielded immediately.

    Yields:
        The answer to each request so far; None for one that has not begun.
    """
    engine, requests = _prepare(llm_engine, template, request_list, lora_request)
    info = _Counter(generation_info)
    answers: list[dict[str, Any] | None] = [None] * len(requests)
    sampling = (generation_config or llm_engine.generation_config).as_sampling()
    for index, delta in stream_all(engine, requests, sampling):
        request = request_list[index]
        if delta.response is not None:
            answers[index] = _answer(delta.response, request, index)
            info.add(delta.response)
        else:
            text = (answers[index] or {"response": ""})["response"] + delta.text
            earlier = [list(turn) for turn in _field(request, "history") or []]
            answers[index] = {"response": text, "history": [*earlier, [_field(request, "query", ""), text]]}
        yield list(answers)


class _Counter:
    """Counts answers and tokens in the `generation_info` that ms-swift's scripts pass."""

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


def _prepare(
    llm_engine: VllmEngine,
    template: Template | None,
    request_list: Sequence[Mapping[str, Any]],
    lora_request: Any = None,
) -> tuple[Engine, list[Any]]:
    """Return an engine with the template, and the requests with the template's system message."""
    requests: list[Any] = [
        dict(request) if isinstance(request, Mapping) else request for request in request_list
    ]
    if lora_request is not None:
        name, path = getattr(lora_request, "lora_name", None), getattr(lora_request, "lora_path", None)
        if not isinstance(name, str) or not name or not isinstance(path, str | Path) or not str(path):
            raise EngineError(
                f"lora_request must be vLLM's LoRARequest, not {type(lora_request).__name__}",
                hint="Write LoRARequest(NAME, 1, PATH), from vllm.lora.request.",
            )
        llm_engine.add_lora(name, path)
        for request in requests:
            if isinstance(request, dict):
                request.setdefault("lora", name)
    if template is None:
        return llm_engine, requests
    if template.default_system is not None:
        for request in requests:
            if isinstance(request, dict) and "query" in request:
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


def _field(request: Any, name: str, default: Any = None) -> Any:
    """Return a field of a request, which may be malformed."""
    return request.get(name, default) if isinstance(request, Mapping) else default


def _answer(response: Response, request: Mapping[str, Any], index: int) -> dict[str, Any]:
    if response.error is None:
        return {"response": response.response, "history": response.history}
    warnings.warn(f"request {index + 1} failed: {response.error}", RuntimeWarning, stacklevel=3)
    return {"response": "", "history": _field(request, "history") or [], "error": str(response.error)}
