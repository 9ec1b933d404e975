"""The engine beside plain vLLM, `LLM.generate`, on the same requests in one run."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, Self

from vlm_run.conversation import Conversation
from vlm_run.errors import EngineError

if TYPE_CHECKING:
    from PIL.Image import Image

    from vlm_run.adapter import Adapter

QUERY = "What is in the picture?"
_WARM_UP = 64


@dataclass(frozen=True, slots=True)
class Load:
    """The requests: one picture each, which no other has, and the same question.

    Attributes:
        width, height: Of the pictures, in pixels.
        count: Of requests.
        max_tokens: Of an answer.
        renderers: Renderer processes; None as many as the engine chooses.
        options: Engine options of both sides.
    """

    width: int
    height: int
    count: int
    max_tokens: int
    renderers: int | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """What one side made of the load.

    Attributes:
        side: Its name.
        images: Answered.
        seconds: From the first request to the last answer, decoding the pictures included.
        prompt_tokens, completion_tokens: Of all requests together.
        first_token_seconds: Per request, from the time that its turn came; empty where the caller
            sees no token before the last answer.
        gpu_busy: Share of the time in which the GPU ran anything, by its driver; None without a GPU.
    """

    side: str
    images: int
    seconds: float
    prompt_tokens: int
    completion_tokens: int
    first_token_seconds: tuple[float, ...] = ()
    gpu_busy: float | None = None

    @property
    def images_per_second(self) -> float:
        """The figure that ratios are taken of."""
        return self.images / self.seconds

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        firsts = sorted(self.first_token_seconds)
        return {
            "side": self.side,
            "images": self.images,
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.images_per_second, 2),
            "prompt_tokens_per_second": round(self.prompt_tokens / self.seconds, 1),
            "completion_tokens": self.completion_tokens,
            "first_token_seconds_p50": round(firsts[len(firsts) // 2], 4) if firsts else None,
            "first_token_seconds_p99": round(firsts[int(0.99 * (len(firsts) - 1))], 4) if firsts else None,
            "gpu_idle": None if self.gpu_busy is None else round(1 - self.gpu_busy, 3),
        }


def compare(adapter: Adapter, load: Load) -> list[Result]:
    """Both sides, one after the other, each in a process of its own.

    Plain vLLM is asked twice: with pictures that it sees for the first time, then with the same
    ones again, which its cache of processed images holds.

    Raises:
        EngineError: A side could not start, or a request failed.
    """
    results: list[Result] = []
    for side in (_ours, _plain):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            results += process.submit(side, adapter, load).result()
    return results


def synthetic_jpegs(count: int, width: int, height: int, seed: int) -> list[bytes]:
    """JPEG files of smooth noise, each different; the same for the same arguments."""
    import numpy as np
    from PIL import Image

    files = []
    for number in range(count):
        noise = np.random.default_rng((seed, number))
        small = noise.integers(0, 255, (max(1, height // 8), max(1, width // 8), 3), dtype=np.uint8)
        buffer = io.BytesIO()
        picture = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
        picture.save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    return files


def _ours(adapter: Adapter, load: Load) -> list[Result]:
    from vlm_run.request import Sampling

    sampling = Sampling(max_tokens=load.max_tokens)
    with adapter.engine(renderers=load.renderers, **_options(load)) as engine:

        def ask(files: Sequence[bytes]) -> Result:
            with _Watch() as watch:
                responses = engine.infer([{"query": QUERY, "images": [file]} for file in files], sampling)
            for response in responses:
                if response.error is not None:
                    raise EngineError(f"a request of the benchmark failed: {response.error}")
            return Result(
                "vlm-run",
                len(responses),
                watch.seconds,
                sum(response.usage.prompt_tokens for response in responses),
                sum(response.usage.completion_tokens for response in responses),
                tuple(response.first_token_seconds for response in responses),
                watch.gpu_busy,
            )

        return _passes(load, ask, ("vlm-run",))


def _plain(adapter: Adapter, load: Load) -> list[Result]:
    # Imported only here: in the other side's process the engine does it in its own time.
    from PIL import Image
    from vllm import LLM, SamplingParams

    sampling = SamplingParams(temperature=0, max_tokens=load.max_tokens)
    llm = LLM(**adapter.engine_kwargs(**_options(load)))
    prompt = adapter.render(Conversation.from_query(QUERY, images=[Image.new("RGB", (8, 8))])).text

    def ask(files: Sequence[bytes]) -> Result:
        with _Watch() as watch:
            prompts = [{"prompt": prompt, "multi_modal_data": {"image": _decoded(file)}} for file in files]
            outputs = llm.generate(prompts, sampling, use_tqdm=False)
        return Result(
            "LLM.generate",
            len(outputs),
            watch.seconds,
            sum(len(output.prompt_token_ids or ()) for output in outputs),
            sum(len(output.outputs[0].token_ids) for output in outputs),
            gpu_busy=watch.gpu_busy,
        )

    try:
        return _passes(load, ask, ("LLM.generate", "LLM.generate, images in its cache"))
    finally:
        # It has no public end, and this process would wait for the engine's on its way out.
        llm.llm_engine.engine_core.shutdown()


def _passes(load: Load, ask: Callable[[Sequence[bytes]], Result], sides: Sequence[str]) -> list[Result]:
    """One pass over the load for each name, after some other pictures to warm up with."""
    ask(synthetic_jpegs(min(_WARM_UP, load.count), load.width, load.height, seed=1))
    files = synthetic_jpegs(load.count, load.width, load.height, seed=0)
    found = [ask(files) for _ in sides]
    return [
        Result(side, *(getattr(result, name) for name in Result.__slots__[1:]))
        for side, result in zip(sides, found, strict=True)
    ]


def _options(load: Load) -> dict[str, Any]:
    # Or the second pass of plain vLLM would find its answers begun.
    return {"enable_prefix_caching": False, **load.options}


def _decoded(file: bytes) -> Image:
    from PIL import Image

    return Image.open(io.BytesIO(file)).convert("RGB")


class _Watch:
    """Measures the time, and how busy the first GPU is meanwhile."""

    def __enter__(self) -> Self:
        self._gpu = _first_gpu()
        self._samples: list[int] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._started
        self._ended.set()
        self._thread.join()

    @property
    def gpu_busy(self) -> float | None:
        return sum(self._samples) / len(self._samples) / 100 if self._samples else None

    def _sample(self) -> None:
        while self._gpu is not None and not self._ended.wait(0.1):
            self._samples.append(self._gpu())


def _first_gpu() -> Callable[[], int] | None:
    """A function that reads how busy the GPU is, in percent; None without one."""
    try:
        from vllm.third_party import pynvml

        pynvml.nvmlInit()
        number = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
        handle = pynvml.nvmlDeviceGetHandleByIndex(int(number))
    except Exception:  # no NVIDIA driver, or a device that is not named by a number
        return None
    return lambda: int(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)
