"""Where the time of an image goes, by vLLM's own profiler."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_run.bench.load import Load
from vlm_run.errors import EngineError

if TYPE_CHECKING:
    from vlm_run.adapter import Adapter

_WARM_UP = 64
_GPU_CATEGORIES = ("kernel", "gpu_memcpy", "gpu_memset")
# The first whose words occur in the name of a kernel or an operator; matched in lower case.
_GROUPS = {
    "copies": ("memcpy", "memset", "copy_", "aten::to", "aten::cat", "catarray"),
    "attention": ("flash", "fmha", "attention", "attn", "reshape_and_cache"),
    "matrix products": (
        "gemm",
        "nvjet",
        "cutlass",
        "cublas",
        "matmul",
        "linear",
        "addmm",
        "aten::mm",
        "conv",
    ),
}
_OTHER = "other kernels"


@dataclass(frozen=True, slots=True)
class Profile:
    """Milliseconds per image.

    Attributes:
        images: Number of images in the profiled requests.
        wall: Duration of the whole profiled part.
        device: Time by kind of work: of the GPU's kernels, or of the CPU's operators without a GPU.
        idle: Time in which the device did nothing.
        slowest: The ten names of kernels or operators that took longest.
        stages: Time of the average request in each stage; these overlap between requests.
        trace: The trace, for https://ui.perfetto.dev.
    """

    images: int
    wall: float
    device: Mapping[str, float]
    idle: float
    slowest: Mapping[str, float]
    stages: Mapping[str, float]
    trace: Path

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        rounded = {
            name: {key: round(value, 3) for key, value in getattr(self, name).items()}
            for name in ("device", "slowest", "stages")
        }
        return {
            "images": self.images,
            "ms_per_image": {"wall": round(self.wall, 3), "idle": round(self.idle, 3), **rounded},
            "trace": str(self.trace),
        }

    def table(self) -> str:
        """Lines for the terminal."""
        lines = [f"{self.images} images, milliseconds per image:", f"  {'wall clock':32} {self.wall:9.2f}"]
        lines += [f"  {name:32} {value:9.2f}" for name, value in self.device.items()]
        lines += [f"  {'device idle':32} {self.idle:9.2f}", "The ten slowest kernels or operators:"]
        lines += [f"  {value:9.2f}  {name[:90]}" for name, value in self.slowest.items()]
        lines += ["The average request, from one stage to the next:"]
        lines += [f"  {name:32} {value:9.2f}" for name, value in self.stages.items()]
        return "\n".join([*lines, f"Trace: {self.trace} (open it at https://ui.perfetto.dev)"])


def profile(adapter: Adapter, load: Load, directory: Path) -> Profile:
    """Answer a round of requests under vLLM's profiler.

    Raises:
        EngineError: The engine could not start, a request failed, or vLLM wrote no trace.
    """
    from vlm_run.engine.profiling import profiled, profiler_options
    from vlm_run.request import Sampling

    directory.mkdir(parents=True, exist_ok=True)
    before = set(directory.glob("*.json*"))
    sampling = Sampling(max_tokens=load.max_tokens)
    options = {"enable_prefix_caching": False, **profiler_options(directory), **load.options}
    with adapter.engine(renderers=load.renderers, **options) as engine:

        def ask(seed: int, count: int) -> list[Any]:
            asked = load.requests(load.sizes[0], seed, count)
            requests = [{"query": each.query, "images": each.images} for each in asked]
            return [each.raise_for_error() for each in engine.infer(requests, sampling)]

        ask(2**32, min(_WARM_UP, load.count))
        with profiled(engine):
            responses = ask(0, load.count)
    written = sorted(set(directory.glob("*.json*")) - before, key=lambda file: file.stat().st_size)
    if not written:
        raise EngineError(f"vLLM's profiler wrote no trace into {directory}")
    stages = {
        name: 1000 * sum(getattr(each.stages, name) for each in responses) / len(responses)
        for name in ("fetch", "decode", "process", "engine")
    }
    return summarize(written[-1], load.count, stages)


def summarize(trace: Path, images: int, stages: Mapping[str, float]) -> Profile:
    """A profile of a trace in Chrome's format, as torch writes it."""
    content = gzip.decompress(trace.read_bytes()) if trace.suffix == ".gz" else trace.read_bytes()
    events = [event for event in json.loads(content)["traceEvents"] if event.get("ph") == "X"]
    found = [event for event in events if event.get("cat") in _GPU_CATEGORIES]
    if not found:
        found = _with_self_time([event for event in events if event.get("cat") == "cpu_op"])
    if not found:
        raise EngineError(f"{trace} contains no kernels and no operators")
    spans = sorted((event["ts"], event["ts"] + event["dur"]) for event in found)
    wall = max(end for _, end in spans) - spans[0][0]
    groups, names = Counter[str](), Counter[str]()
    for event in found:
        groups[_group(event["name"])] += event.get("self", event["dur"])
        names[event["name"]] += event.get("self", event["dur"])
    per_image = 1 / 1000 / images  # from microseconds of all images
    return Profile(
        images,
        wall * per_image,
        {name: value * per_image for name, value in groups.most_common()},
        (wall - _covered(spans)) * per_image,
        {name: value * per_image for name, value in names.most_common(10)},
        stages,
        trace,
    )


def _group(name: str) -> str:
    name = name.lower()
    return next((group for group, words in _GROUPS.items() if any(word in name for word in words)), _OTHER)


def _covered(spans: Iterable[tuple[float, float]]) -> float:
    """The length of the union of spans, which are sorted by their start."""
    total, reached = 0.0, float("-inf")
    for start, end in spans:
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _with_self_time(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Operators with their time without that of the operators inside them."""
    open_events: dict[Any, list[dict[str, Any]]] = {}
    timed = []
    for event in sorted(events, key=lambda each: (each["ts"], -each["dur"])):
        stack = open_events.setdefault(event.get("tid"), [])
        while stack and stack[-1]["ts"] + stack[-1]["dur"] <= event["ts"]:
            stack.pop()
        if stack:
            stack[-1]["self"] -= event["dur"]
        stack.append({**event, "self": event["dur"]})
        timed.append(stack[-1])
    return timed
