"""Compare `Engine.infer` with ms-swift's vLLM backend on the same requests: python benchmarks/ms_swift.py

Needs ms-swift 4 in the same environment: `pip install ms-swift`. Both engines run at once and are asked in
turns, each with an equal part of the GPU's memory. demo-llava comes with its weights; for another model type,
a checkpoint with real dimensions and random weights is written (benchmarks/checkpoints.py) unless --model
names one:

    python benchmarks/ms_swift.py qwen2-vl-2b-instruct --size 672 672 --count 320 \
        --options '{"max_model_len": 4096, "kv_cache_memory_bytes": 8589934592}'
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from checkpoints import MODELS, write
from environment import environment

from vlm_run import Registry
from vlm_run.adapter import Adapter
from vlm_run.bench.load import QUERY, Ask, Load, Result, Watch
from vlm_run.bench.offline import Ours, compare
from vlm_run.engine.vllm_internals import stop_engine_processes

SWIFT_TYPES = {
    "demo-llava": "llava1_6_mistral_hf",
    "llava1_6-mistral-7b-instruct": "llava1_6_mistral_hf",
    "qwen2-vl-2b-instruct": "qwen2_vl",
}
"""ms-swift 4's names of a model type and its template, which are the same; prompts equal vlm-run's."""

# Options that decide what is computed, or what fits beside the other engine. ms-swift keeps its own defaults
# for all others.
_SHARED = (
    *("max_model_len", "limit_mm_per_prompt", "load_format", "gpu_memory_utilization"),
    *("enforce_eager", "max_num_seqs"),
)
_SHARED_EXTRA = ("kv_cache_memory_bytes", "max_num_batched_tokens")


class Swift:
    """`VllmEngine.infer` of ms-swift, with its own defaults for the engine."""

    name = f"ms-swift {version('ms-swift')}"

    def __init__(self, adapter: Adapter, load: Load) -> None:
        os.environ["VLLM_PLUGINS"] = ""  # before vLLM is imported: without the classes of vlm-run's plugins
        import torch
        from swift.infer_engine import RequestConfig, VllmEngine

        options = adapter.engine_kwargs(**self.options(adapter, load))
        swift_type = SWIFT_TYPES[adapter.spec.model_type]
        dtype = options.get("dtype")
        self._engine: Any = VllmEngine(
            options["model"],
            model_type=swift_type,
            template_type=swift_type,
            torch_dtype=dtype and getattr(torch, dtype),
            enable_prefix_caching=options.get("enable_prefix_caching", False),
            **{name: options[name] for name in _SHARED if name in options},
            engine_kwargs={name: options[name] for name in _SHARED_EXTRA if name in options},
        )
        self._config = RequestConfig(max_tokens=load.max_tokens, temperature=0)

    def options(self, adapter: Adapter, load: Load) -> dict[str, Any]:
        """The engine options on top of the plugin's."""
        return load.options

    def ask(self, requests: Sequence[Ask]) -> list[Result]:
        """Answer the requests of one round."""
        from swift.infer_engine import InferRequest

        asked = [
            InferRequest(
                messages=[{"role": "user", "content": "<image>" * len(each.images) + each.query}],
                images=[base64.b64encode(image).decode() for image in each.images],
            )
            for each in requests
        ]
        with Watch() as watch:
            responses = self._engine.infer(asked, self._config, use_tqdm=False)
        return [
            Result(
                self.name,
                (watch.seconds,),
                sum(response.usage.prompt_tokens for response in responses),
                sum(response.usage.completion_tokens for response in responses),
                tuple(response.choices[0].message.content.lstrip() for response in responses),
                gpu_busy=watch.gpu_busy,
                cpu_seconds=watch.cpu_seconds,
            )
        ]

    def stop(self) -> None:
        """End the engine's processes."""
        stop_engine_processes(self._engine.engine)


class SwiftSameSteps(Swift):
    """ms-swift with as many sequences and tokens in a step of the engine as vlm-run.

    vLLM chooses these numbers by how it was started, and takes fewer tokens a step for ms-swift.
    """

    name = f"{Swift.name}, vlm-run's step sizes"

    def options(self, adapter: Adapter, load: Load) -> dict[str, Any]:
        """The engine options on top of the plugin's."""
        steps = adapter.vllm_config(**load.options).scheduler_config
        sizes = {name: getattr(steps, name) for name in ("max_num_seqs", "max_num_batched_tokens")}
        return {**load.options, **sizes}


def main() -> None:
    """Parse the command line, measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model_type", nargs="?", default="demo-llava", choices=list(SWIFT_TYPES))
    parser.add_argument("--model", type=Path, help="checkpoint directory")
    parser.add_argument("--count", type=int, default=128, help="images per round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--size", type=int, nargs=2, action="append", help="image size in pixels; repeatable, 256 192"
    )
    parser.add_argument("--tokens", type=int, default=8, help="maximum tokens per answer")
    parser.add_argument("--renderers", type=int, help="number of renderer processes")
    parser.add_argument("--options", type=json.loads, default={}, help="engine options of both, as JSON")
    parser.add_argument(
        "--same-steps", action="store_true", help="also ms-swift with vlm-run's step sizes of the engine"
    )
    parser.add_argument("--tiny", action="store_true", help="write a checkpoint with small dimensions")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        checkpoint, options = asked.model, {"enable_prefix_caching": False, **asked.options}
        if checkpoint is None and asked.model_type in MODELS:
            checkpoint = write(asked.model_type, Path(directory), tiny=asked.tiny)
            options["load_format"] = "dummy"
        sizes = tuple(dict.fromkeys(map(tuple, asked.size or [(256, 192)])))
        load = Load(sizes, asked.count, asked.tokens, asked.renderers, options, asked.rounds)
        adapter = Registry.load(asked.model_type, checkpoint=checkpoint and str(checkpoint))
        sides = (Ours, Swift, SwiftSameSteps) if asked.same_steps else (Ours, Swift)
        results = compare(adapter, load, sides)
    print(json.dumps(report(asked.model_type, options, results), indent=2))


def report(model_type: str, options: dict[str, Any], results: Sequence[Result]) -> dict[str, Any]:
    """The measurements; the first of those with images of one size is vlm-run's."""
    ours: dict[Any, Result] = {}
    rows = []
    for result in results:
        first = ours.setdefault(result.size, result)
        rows.append(
            {
                **result.to_dict(),
                "ratio": round(first.images_per_second / result.images_per_second, 3),
                "same_answers": round(result.same_answers(first), 3),
                "same_prompt_tokens": result.prompt_tokens == first.prompt_tokens,
            }
        )
    return {
        "model_type": model_type,
        "query": QUERY,
        "options": options,
        "results": rows,
        **environment("ms-swift", "transformers", "torch"),
    }


if __name__ == "__main__":
    main()
