"""What a benchmark asks, and what one side of it made of that."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from vlm_run.engine.gpu import gpu_utilization

QUERY = "What is in the picture?"


@dataclass(frozen=True, slots=True)
class Load:
    """The requests: one picture each, which no other has, and the same question.

    Attributes:
        width, height: Of the pictures, in pixels.
        count: Of requests in a round.
        max_tokens: Of an answer.
        renderers: Renderer processes; None as many as the engine chooses.
        options: Engine options of all sides.
        rounds: With more than one, all sides run at once and are asked in turns, so that what else
            the machine does meets them all.
        clients: Of a server, at a time; each number is a run of its own.
        api_servers: Also measure vLLM's server with so many API processes.
    """

    width: int
    height: int
    count: int
    max_tokens: int
    renderers: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    rounds: int = 1
    clients: tuple[int, ...] = (1, 8, 64)
    api_servers: int | None = None

    def pictures(self, seed: int, count: int | None = None) -> list[bytes]:
        """The JPEG files of a round; each seed has others."""
        return synthetic_jpegs(count or self.count, self.width, self.height, seed)


@dataclass(frozen=True, slots=True)
class Result:
    """What one side made of the load.

    Attributes:
        side: Its name.
        seconds: Of each round, from the first request to the last answer, decoding included.
        prompt_tokens, completion_tokens: Of all requests together.
        answers: Of all requests, in the order in which they were asked.
        first_token_seconds: Per request, from the time that its turn came; empty where the caller
            sees no token before the last answer.
        stages: The share of the requests' time in each stage; None where that is not known.
        gpu_busy: Share of the time in which the GPU ran anything, by its driver; None without a GPU.
        clients: Of a server, at a time.
    """

    side: str
    seconds: tuple[float, ...]
    prompt_tokens: int
    completion_tokens: int
    answers: tuple[str, ...]
    first_token_seconds: tuple[float, ...] = ()
    stages: dict[str, float] | None = None
    gpu_busy: float | None = None
    clients: int | None = None

    @property
    def images(self) -> int:
        """Answered."""
        return len(self.answers)

    @property
    def images_per_second(self) -> float:
        """The figure that ratios are taken of."""
        return self.images / sum(self.seconds)

    def same_answers(self, other: Result) -> float:
        """The share of requests that two sides answered alike."""
        pairs = zip(self.answers, other.answers, strict=True)
        return sum(mine == theirs for mine, theirs in pairs) / max(1, self.images)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form, without the answers."""
        each = self.images / len(self.seconds)
        return {
            "side": self.side,
            "clients": self.clients,
            "images": self.images,
            "seconds": round(sum(self.seconds), 3),
            "images_per_second": round(self.images_per_second, 2),
            "images_per_second_by_round": [round(each / seconds, 2) for seconds in self.seconds],
            "prompt_tokens": self.prompt_tokens,
            "prompt_tokens_per_second": round(self.prompt_tokens / sum(self.seconds), 1),
            "completion_tokens": self.completion_tokens,
            "first_token_seconds_p50": _quantile(self.first_token_seconds, 0.5),
            "first_token_seconds_p99": _quantile(self.first_token_seconds, 0.99),
            "stages": self.stages and {name: round(share, 3) for name, share in self.stages.items()},
            "gpu_idle": None if self.gpu_busy is None else round(1 - self.gpu_busy, 3),
        }


def joined(results: Sequence[Result]) -> Result:
    """The rounds of one side as one result."""
    first = results[0]
    busy = [result.gpu_busy for result in results if result.gpu_busy is not None]
    stages = [result.stages for result in results if result.stages is not None]
    return Result(
        first.side,
        tuple(second for result in results for second in result.seconds),
        sum(result.prompt_tokens for result in results),
        sum(result.completion_tokens for result in results),
        tuple(answer for result in results for answer in result.answers),
        tuple(second for result in results for second in result.first_token_seconds),
        {name: _mean([each[name] for each in stages]) for name in stages[0]} if stages else None,
        _mean(busy) if busy else None,
        first.clients,
    )


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


class Watch:
    """Measures the time, and how busy the first GPU is meanwhile."""

    def __enter__(self) -> Self:
        self._gpu = gpu_utilization()
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
        """The share of the samples; None without a GPU."""
        return _mean(self._samples) / 100 if self._samples else None

    def _sample(self) -> None:
        while self._gpu is not None and not self._ended.wait(0.1):
            self._samples.append(self._gpu())


def _quantile(values: Sequence[float], share: float) -> float | None:
    return round(sorted(values)[int(share * (len(values) - 1))], 4) if values else None


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
