"""The engine beside plain vLLM, `LLM.generate`, on the same requests in one run."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, Protocol

from vlm_run.bench.load import QUERY, Load, Result, Watch, joined
from vlm_run.engine.plain_llm import PlainLLM
from vlm_run.errors import EngineError
from vlm_run.prompts.conversation import Conversation

if TYPE_CHECKING:
    from vlm_run.adapter import Adapter
    from vlm_run.engine.engine import Engine

OURS, PLAIN = "vlm-run", "LLM.generate"
CACHED = "LLM.generate, images in its cache"
_WARM_UP = 64


class Side(Protocol):
    """Something that answers, in a process of its own."""

    def __init__(self, adapter: Adapter, load: Load) -> None: ...

    def ask(self, files: Sequence[bytes]) -> list[Result]:
        """The requests of one round, each about one picture; a result for each way of asking them."""

    def stop(self) -> None:
        """End it and its processes."""


class Ours:
    """`Engine.infer`."""

    def __init__(self, adapter: Adapter, load: Load) -> None:
        self._load = load
        self._engine: Engine = adapter.engine(renderers=load.renderers, **_options(load))

    def ask(self, files: Sequence[bytes]) -> list[Result]:
        from vlm_run.request import Sampling

        sampling = Sampling(max_tokens=self._load.max_tokens)
        with Watch() as watch:
            responses = self._engine.infer([{"query": QUERY, "images": [file]} for file in files], sampling)
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
            )
        ]

    def stop(self) -> None:
        self._engine.shutdown()


class Plain:
    """`LLM.generate`, with pictures that are new to it, then with the same ones in its image cache."""

    def __init__(self, adapter: Adapter, load: Load) -> None:
        from PIL import Image

        self._load = load
        self._llm = PlainLLM(adapter.engine_kwargs(**_options(load)))
        picture = Image.new("RGB", (8, 8))
        self._prompt = adapter.render_prompt(Conversation.from_query(QUERY, images=[picture])).text

    def ask(self, files: Sequence[bytes]) -> list[Result]:
        return [self._generate(name, files) for name in (PLAIN, CACHED)]

    def _generate(self, name: str, files: Sequence[bytes]) -> Result:
        with Watch() as watch:
            prompts = [
                {"prompt": self._prompt, "multi_modal_data": {"image": _decoded(file)}} for file in files
            ]
            outputs = self._llm.generate(prompts, self._load.max_tokens)
        return Result(
            name,
            (watch.seconds,),
            sum(len(output.prompt_token_ids or ()) for output in outputs),
            sum(len(output.outputs[0].token_ids) for output in outputs),
            tuple(output.outputs[0].text.lstrip() for output in outputs),
            gpu_busy=watch.gpu_busy,
        )

    def stop(self) -> None:
        self._llm.shutdown()


def compare(adapter: Adapter, load: Load, sides: Sequence[type[Side]] = (Ours, Plain)) -> list[Result]:
    """All sides, one after the other, or in turns with several rounds.

    Raises:
        EngineError: A side could not start, or a request failed.
    """
    if load.rounds == 1:
        return [result for side in sides for result in _in_turns(adapter, load, [side])]
    return _in_turns(adapter, load, sides)


def _in_turns(adapter: Adapter, load: Load, sides: Sequence[type[Side]]) -> list[Result]:
    found: dict[str, list[Result]] = {}
    with ExitStack() as running:
        asks = [running.enter_context(_running(side, adapter, load)) for side in sides]
        for number in range(load.rounds):
            for ask in asks if number % 2 == 0 else asks[::-1]:
                for result in ask(number):
                    found.setdefault(result.side, []).append(result)
    return [joined(results) for results in found.values()]


@contextmanager
def _running(side: type[Side], adapter: Adapter, load: Load) -> Iterator[Callable[[int], list[Result]]]:
    """A function that asks a running side the round of a number."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        process.submit(_start, side, adapter, load).result()
        try:
            yield lambda number: process.submit(_ask, number).result()
        finally:
            process.submit(_stop).result()


# Below, what runs in a side's process.

_here: list[tuple[Side, Load]] = []


def _start(side: type[Side], adapter: Adapter, load: Load) -> None:
    _here[:] = [(side(adapter, load), load)]
    _here[0][0].ask(load.pictures(seed=2**32, count=min(_WARM_UP, load.count)))


def _ask(number: int) -> list[Result]:
    ((side, load),) = _here
    return side.ask(load.pictures(seed=number))


def _stop() -> None:
    for side, _ in _here:
        side.stop()


def _options(load: Load) -> dict[str, Any]:
    # Or plain vLLM's second pass would find its answers begun.
    return {"enable_prefix_caching": False, **load.options}


def _decoded(file: bytes) -> Any:
    from PIL import Image

    return Image.open(io.BytesIO(file)).convert("RGB")


def _shares(responses: Sequence[Any]) -> dict[str, float]:
    whole = sum(response.seconds for response in responses)
    names = ("fetch", "decode", "process", "engine")
    spent = {name: sum(getattr(each.stages, name) for each in responses) / whole for name in names}
    return {**spent, "waiting": max(0.0, 1 - sum(spent.values()))}
