"""The requests of a benchmark, and the measurements of one side of it."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Self

from vlm_run.engine.gpu import gpu_utilization

QUERY = "What is in the image?"
Size = tuple[int, int]
"""Width and height in pixels."""

OWN, SAME = "own", "same"
"""How plain vLLM is run: as it is installed, or with vlm-run's engine options and plugins."""


@dataclass(frozen=True, slots=True)
class Load:
    """The requests of a benchmark: the same question about one image each, and all images different.

    Attributes:
        sizes: Image sizes, width and height in pixels; each is measured separately.
        count: Number of requests in a round.
        max_tokens: Maximum number of tokens in an answer.
        renderers: Renderer processes; None for as many as the engine chooses.
        options: Engine options of all sides. With `kv_cache_memory_bytes` all sides start at once: vLLM
            then does not measure the free memory, which the start of another would change.
        rounds: With more than one, all sides run together and are measured in turns, so that other
            work on the machine affects all of them.
        clients: Numbers of concurrent clients of a server, each measured separately.
        api_servers: Also measure vLLM's server with this many API processes.
        images: Whether requests have an image; without one, each question is different.
        plain: How plain vLLM is run: `OWN`, `SAME` or both.
    """

    sizes: tuple[Size, ...]
    count: int
    max_tokens: int
    renderers: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    rounds: int = 1
    clients: tuple[int, ...] = (1, 8, 64)
    api_servers: int | None = None
    images: bool = True
    plain: tuple[str, ...] = (OWN,)

    @property
    def start_together(self) -> bool:
        """Whether engines may start at the same time."""
        return "kv_cache_memory_bytes" in self.options

    def requests(self, size: Size, seed: int, count: int | None = None) -> list[Ask]:
        """The requests of a round, different for each seed."""
        count = count or self.count
        if not self.images:
            return [Ask(f"{QUERY} ({seed}, {number})") for number in range(count)]
        return [Ask(QUERY, file) for file in synthetic_jpegs(count, *size, seed)]


@dataclass(frozen=True, slots=True)
class Ask:
    """One request of a benchmark.

    Attributes:
        query: The question.
        image: A JPEG file; None for a request without an image.
    """

    query: str
    image: bytes | None = None

    @property
    def images(self) -> list[bytes]:
        """The image, if there is one."""
        return [] if self.image is None else [self.image]


@dataclass(frozen=True, slots=True)
class Result:
    """The measurements of one side.

    Attributes:
        side: Its name.
        seconds: Duration of each round, from the first request to the last answer, including decoding.
        prompt_tokens: Prompt tokens of all requests.
        completion_tokens: Tokens of all answers.
        answers: The answers, in the order of the requests.
        first_token_seconds: For each request, the time until its first token, from when it was taken
            up; empty where the caller sees no token before the last answer.
        stages: The share of the requests' time in each stage; None where that is not known.
        gpu_busy: Share of the time in which the GPU ran anything, by its driver; None without a GPU.
        cpu_seconds: CPU time of the side's processes; None if it was not measured.
        size: Width and height of the images in pixels.
        clients: Number of concurrent clients of a server.
    """

    side: str
    seconds: tuple[float, ...]
    prompt_tokens: int
    completion_tokens: int
    answers: tuple[str, ...]
    first_token_seconds: tuple[float, ...] = ()
    stages: dict[str, float] | None = None
    gpu_busy: float | None = None
    cpu_seconds: float | None = None
    size: Size | None = None
    clients: int | None = None

    @property
    def images(self) -> int:
        """The number of requests that were answered."""
        return len(self.answers)

    @property
    def images_per_second(self) -> float:
        """The throughput, from which ratios are computed."""
        return self.images / sum(self.seconds)

    def same_answers(self, other: Result) -> float:
        """The share of requests that two sides answered alike."""
        pairs = zip(self.answers, other.answers, strict=True)
        return sum(mine == theirs for mine, theirs in pairs) / max(1, self.images)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form, without the answers."""
        per_round = self.images / len(self.seconds)
        total = sum(self.seconds)
        gpu_seconds = None if self.gpu_busy is None else self.gpu_busy * total
        return {
            "side": self.side,
            "size": self.size and list(self.size),
            "clients": self.clients,
            "images": self.images,
            "seconds": round(total, 3),
            "images_per_second": round(self.images_per_second, 2),
            "images_per_second_by_round": [round(per_round / seconds, 2) for seconds in self.seconds],
            "prompt_tokens": self.prompt_tokens,
            "prompt_tokens_per_second": round(self.prompt_tokens / total, 1),
            "completion_tokens": self.completion_tokens,
            "completion_tokens_per_second": round(self.completion_tokens / total, 1),
            "first_token_seconds_p50": _quantile(self.first_token_seconds, 0.5),
            "first_token_seconds_p99": _quantile(self.first_token_seconds, 0.99),
            "stages": self.stages and {name: round(share, 3) for name, share in self.stages.items()},
            "gpu_idle": None if self.gpu_busy is None else round(1 - self.gpu_busy, 3),
            "gpu_ms_per_image": self._milliseconds(gpu_seconds),
            "cpu_ms_per_image": self._milliseconds(self.cpu_seconds),
        }

    def _milliseconds(self, seconds: float | None) -> float | None:
        return None if seconds is None else round(1000 * seconds / max(1, self.images), 2)


def joined(results: Sequence[Result]) -> Result:
    """The rounds of one side as one result."""
    first = results[0]
    total = sum(sum(result.seconds) for result in results)
    busy = [(result.gpu_busy, sum(result.seconds)) for result in results if result.gpu_busy is not None]
    stages = [result.stages for result in results if result.stages is not None]
    cpu = [result.cpu_seconds for result in results if result.cpu_seconds is not None]
    return Result(
        first.side,
        tuple(second for result in results for second in result.seconds),
        sum(result.prompt_tokens for result in results),
        sum(result.completion_tokens for result in results),
        tuple(answer for result in results for answer in result.answers),
        tuple(second for result in results for second in result.first_token_seconds),
        {name: _mean([each[name] for each in stages]) for name in stages[0]} if stages else None,
        sum(share * seconds for share, seconds in busy) / total if busy else None,
        sum(cpu) if cpu else None,
        first.size,
        first.clients,
    )


def synthetic_jpegs(count: int, width: int, height: int, seed: int) -> list[bytes]:
    """JPEG files of smooth noise, all different; the same for the same arguments."""
    import numpy as np
    from PIL import Image

    def jpeg(number: int) -> bytes:
        noise = np.random.default_rng((seed, number))
        small = noise.integers(0, 255, (max(1, height // 8), max(1, width // 8), 3), dtype=np.uint8)
        buffer = io.BytesIO()
        image = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
        image.save(buffer, "JPEG", quality=90)
        return buffer.getvalue()

    with ThreadPoolExecutor() as threads:  # Pillow releases the interpreter lock
        return list(threads.map(jpeg, range(count)))


class Watch:
    """Measures time, the CPU time of a process and its children, and how busy the first GPU is.

    Args:
        pid: The process; this one by default.
    """

    def __init__(self, pid: int | None = None) -> None:
        self._pid = pid

    def __enter__(self) -> Self:
        self._gpu = gpu_utilization()
        self._samples: list[int] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        self._cpu_before = _cpu_seconds(self._pid)
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._started
        self.cpu_seconds = _cpu_seconds(self._pid) - self._cpu_before
        self._ended.set()
        self._thread.join()

    @property
    def gpu_busy(self) -> float | None:
        """Share of the time in which the GPU ran anything; None without a GPU."""
        return _mean(self._samples) / 100 if self._samples else None

    def _sample(self) -> None:
        while self._gpu is not None and not self._ended.wait(0.1):
            self._samples.append(self._gpu())


def _cpu_seconds(pid: int | None) -> float:
    import psutil  # a dependency of vLLM

    process = psutil.Process(pid)
    total = 0.0
    for each in [process, *process.children(recursive=True)]:
        try:
            times = each.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def _quantile(values: Sequence[float], share: float) -> float | None:
    return round(sorted(values)[int(share * (len(values) - 1))], 4) if values else None


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
