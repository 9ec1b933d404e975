"""One engine on two GPUs beside one engine on one GPU, offline: python benchmarks/two_gpus.py

Both are asked with `Engine.infer`. The engine on two GPUs has `data_parallel_size=2`: each GPU has a copy of
the model and answers a part of the requests. Both engines run at once and are asked in turns, so the first
GPU has two, of which one is idle. A checkpoint with the dimensions of Qwen2-VL-2B and random weights is
written unless --model names one.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from checkpoints import write
from environment import environment

from vlm_run import Registry
from vlm_run.adapter import Adapter
from vlm_run.bench.load import Ask, Load, Result
from vlm_run.bench.offline import Ours, compare

MODEL_TYPE = "qwen2-vl-2b-instruct"


class OneGpu(Ours):
    """An engine on the first GPU."""

    name = "one GPU"

    def __init__(self, adapter: Adapter, load: Load) -> None:
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "0,1")
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus.partition(",")[0]  # before torch is imported
        super().__init__(adapter, load)

    def ask(self, requests: Sequence[Ask]) -> list[Result]:
        """Answer the requests of one round."""
        return [replace(result, side=self.name) for result in super().ask(requests)]


class TwoGpus(OneGpu):
    """An engine on both GPUs."""

    name = "two GPUs"

    def __init__(self, adapter: Adapter, load: Load) -> None:
        options = {**load.options, "data_parallel_size": 2}
        Ours.__init__(self, adapter, replace(load, options=options))


def main() -> None:
    """Parse the command line, measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path, help="checkpoint directory")
    parser.add_argument("--count", type=int, default=640, help="images per round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, nargs=2, default=(672, 672), help="image size in pixels")
    parser.add_argument("--tokens", type=int, default=8, help="maximum tokens per answer")
    parser.add_argument("--renderers", type=int, help="renderer processes of each engine")
    parser.add_argument("--options", type=json.loads, default={}, help="engine options, as JSON")
    parser.add_argument("--tiny", action="store_true", help="write a checkpoint with small dimensions")
    asked = parser.parse_args()
    # With KV caches of a fixed size both engines start at once.
    options = {"load_format": "dummy", "max_model_len": 4096, "kv_cache_memory_bytes": 8 * 2**30}
    options |= asked.options
    with tempfile.TemporaryDirectory() as directory:
        checkpoint = asked.model or write(MODEL_TYPE, Path(directory), tiny=asked.tiny)
        load = Load((tuple(asked.size),), asked.count, asked.tokens, asked.renderers, options, asked.rounds)
        one, two = compare(Registry.load(MODEL_TYPE, checkpoint=str(checkpoint)), load, (OneGpu, TwoGpus))
    print(json.dumps(report(options, one, two), indent=2))


def report(options: dict[str, Any], one: Result, two: Result) -> dict[str, Any]:
    """The measurements. The GPU's share of time is that of the first GPU."""
    return {
        "options": options,
        "results": [one.to_dict(), two.to_dict()],
        "speedup": round(two.images_per_second / one.images_per_second, 3),
        "same_answers": round(two.same_answers(one), 3),
        **environment("torch"),
    }


if __name__ == "__main__":
    main()
