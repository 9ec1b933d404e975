"""The engine beside plain vLLM, `LLM.generate`, on the same requests in one run."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, Protocol

from vlm_run.bench.load import OWN, SAME, Ask, Load, Result, Size, Watch, joined
from vlm_run.engine.plain_llm import PlainLLM
from vlm_run.errors import EngineError, VlmRunError
from vlm_run.plugins.gpu_throughput import has_nvidia_gpu
from vlm_run.prompts.conversation import Conversation

if TYPE_CHECKING:
    from vlm_run.adapter import Adapter
    from vlm_run.engine.engine import Engine

OURS, PLAIN = "vlm-run", "LLM.generate"
CACHED = "LLM.generate, images in its cache"
SAME_OPTIONS = "LLM.generate, vlm-run's options and plugins"
_WARM_UP = 64
# Of the GPU's memory, for all sides together.
_GPU_MEMORY = 0.88


class Side(Protocol):
    """Something that answers requests, in a process of its own."""

    def __init__(self, adapter: Adapter, load: Load) -> None: ...

    def ask(self, requests: Sequence[Ask]) -> list[Result]:
        """Answer the requests of one round; one result for each way of asking them."""

    def stop(self) -> None:
        """End the side and its processes."""


class Ours:
    """`Engine.infer`."""

    def __init__(self, adapter: Adapter, load: Load) -> None:
        self._load = load
        self._engine: Engine = adapter.engine(renderers=load.renderers, **_options(load))

    def ask(self, requests: Sequence[Ask]) -> list[Result]:
        """Answer the requests of one round."""
        from vlm_run.request import Sampling

        sampling = Sampling(max_tokens=self._load.max_tokens)
        asked = [{"query": each.query, "images": each.images} for each in requests]
        with Watch() as watch:
            responses = self._engine.infer(asked, sampling)
        for response in responses:
            if response.error is not None:
                raise EngineError(f"a request of the benchmark failed: {response.error}")
        return [
            Result(
                OURS,
                (watch.seconds,),
                sum(response.usage.prompt_tokens for response in responses),
                sum(response.usage.completion_tokens for response in responses),
                tuple(response.response for response in responses),
                tuple(response.first_token_seconds for response in responses),
                _shares(responses),
                watch.gpu_busy,
                watch.cpu_seconds,
            )
        ]

    def stop(self) -> None:
        """Shut the engine down."""
        self._engine.shutdown()


class Plain:
    """`LLM.generate` as vLLM is installed: without the classes that vlm-run's plugins register.

    It is asked with images that are new to it, then with the same images, which its image cache holds.
    """

    names: Sequence[str] = (PLAIN, CACHED)

    def __init__(self, adapter: Adapter, load: Load) -> None:
        from PIL import Image

        if type(self) is Plain:
            os.environ["VLLM_PLUGINS"] = ""  # before vLLM is imported; its processes inherit it
        self._load = load
        self._llm = PlainLLM(adapter.engine_kwargs(**_options(load)))
        images = [Image.new("RGB", (8, 8))] if load.images else []
        self._adapter, self._images = adapter, images

    def ask(self, requests: Sequence[Ask]) -> list[Result]:
        """Answer the requests of one round, once for each name."""
        return [self._generate(name, requests) for name in self.names[: 2 if self._load.images else 1]]

    def _generate(self, name: str, requests: Sequence[Ask]) -> Result:
        prompts = {query: self._prompt(query) for query in {each.query for each in requests}}
        with Watch() as watch:
            outputs = self._llm.generate(
                [_plain_prompt(prompts[each.query], each) for each in requests], self._load.max_tokens
            )
        return Result(
            name,
            (watch.seconds,),
            sum(len(output.prompt_token_ids or ()) for output in outputs),
            sum(len(output.outputs[0].token_ids) for output in outputs),
            tuple(output.outputs[0].text.lstrip() for output in outputs),
            gpu_busy=watch.gpu_busy,
            cpu_seconds=watch.cpu_seconds,
        )

    def _prompt(self, query: str) -> str:
        conversation = Conversation.from_query(query, images=list(self._images))
        return self._adapter.render_prompt(conversation).text

    def stop(self) -> None:
        """End the engine's processes."""
        self._llm.shutdown()


class PlainWithOptions(Plain):
    """`LLM.generate` with vlm-run's engine options and the classes that its plugins register."""

    names: Sequence[str] = (SAME_OPTIONS,)


_PLAIN: dict[str, type[Side]] = {OWN: Plain, SAME: PlainWithOptions}


def compare(adapter: Adapter, load: Load, sides: Sequence[type[Side]] | None = None) -> list[Result]:
    """Measure all sides: in turns with several rounds, or else one after the other.

    Raises:
        EngineError: A side could not start, or a request failed.
    """
    if sides is None:
        sides = [Ours, *(_PLAIN[name] for name in load.plain)]
    if load.rounds == 1:
        results = [result for side in sides for result in _in_turns(adapter, load, [side])]
        return sorted(results, key=lambda result: load.sizes.index(result.size or load.sizes[0]))
    return _in_turns(adapter, with_memory_shared(load, len(sides)), sides)


def with_memory_shared(load: Load, sides: int) -> Load:
    """The load with an equal part of the GPU's memory for each side, unless the user gave one."""
    if sides == 1 or not has_nvidia_gpu() or "gpu_memory_utilization" in load.options:
        return load
    share = {"gpu_memory_utilization": round(_GPU_MEMORY / sides, 2)}
    return replace(load, options={**load.options, **share})


def _in_turns(adapter: Adapter, load: Load, sides: Sequence[type[Side]]) -> list[Result]:
    results = []
    with ExitStack() as running:
        asks = running_sides(running, sides, adapter, load)
        for size in load.sizes:
            found: dict[str, list[Result]] = {}
            for number in range(load.rounds):
                for ask in asks if number % 2 == 0 else asks[::-1]:
                    for result in ask(size, number):
                        found.setdefault(result.side, []).append(replace(result, size=size))
            # In the order of the sides, whoever was asked first.
            results += [joined(found[name]) for name in sorted(found, key=_order)]
    return results


def _order(name: str) -> int:
    names = [OURS, PLAIN, CACHED, SAME_OPTIONS]
    return names.index(name) if name in names else len(names)


def running_sides(
    running: ExitStack, sides: Sequence[type[Side]], adapter: Adapter, load: Load
) -> list[Callable[[Size, int], list[Result]]]:
    """Start each side in a process of its own; they end with `running`.

    Returns:
        For each side, a function that asks it the requests of a round.
    """
    processes = [running.enter_context(_process()) for _ in sides]
    starting = []
    for process, side in zip(processes, sides, strict=True):
        starting.append(process.submit(_start, side, adapter, load))
        if not load.start_together:
            starting[-1].result()
    for started in starting:
        started.result()
    return [partial(_ask_in, process) for process in processes]


@contextmanager
def _process() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        try:
            yield process
        finally:
            process.submit(_stop).result()


def _ask_in(process: ProcessPoolExecutor, size: Size, number: int) -> list[Result]:
    return process.submit(_ask, size, number).result()


# Below, what runs in a side's process.

_side: Side | None = None
_load: Load | None = None


def _start(side: type[Side], adapter: Adapter, load: Load) -> None:
    global _side, _load
    try:
        _side, _load = side(adapter, load), load
    except VlmRunError:
        raise
    except Exception as error:  # vLLM's may not be picklable
        raise EngineError(f"{side.__name__} did not start: {error}") from None
    _side.ask(load.requests(load.sizes[0], seed=2**32, count=min(_WARM_UP, load.count)))


def _ask(size: Size, number: int) -> list[Result]:
    assert _side is not None
    assert _load is not None
    return _side.ask(_load.requests(size, seed=number))


def _stop() -> None:
    if _side is not None:
        _side.stop()


def _options(load: Load) -> dict[str, Any]:
    # With prefix caching plain vLLM's second pass would find its prompts computed.
    return {"enable_prefix_caching": False, **load.options}


def _plain_prompt(prompt: str, request: Ask) -> dict[str, Any]:
    if request.image is None:
        return {"prompt": prompt}
    return {"prompt": prompt, "multi_modal_data": {"image": _decoded(request.image)}}


def _decoded(file: bytes) -> Any:
    from PIL import Image

    return Image.open(io.BytesIO(file)).convert("RGB")


def _shares(responses: Sequence[Any]) -> dict[str, float]:
    whole = sum(response.seconds for response in responses)
    names = ("fetch", "decode", "process", "engine")
    spent = {name: sum(getattr(each.stages, name) for each in responses) / whole for name in names}
    return {**spent, "waiting": max(0.0, 1 - sum(spent.values()))}
