"""Compare `Engine.infer` with ms-swift's vLLM backend on the same requests: python benchmarks/ms_swift.py

Needs ms-swift 4 in the same environment: `pip install ms-swift`. Both engines run at once and are asked in
turns. The model is demo-llava, whose prompt equals that of ms-swift's template llava1_6_mistral_hf.
"""

from __future__ import annotations

import argparse
import base64
import json
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from vlm_run import Registry
from vlm_run.adapter import Adapter
from vlm_run.bench.load import QUERY, Load, Result, Watch
from vlm_run.bench.offline import Ours, compare


class Swift:
    """`VllmEngine.infer` of ms-swift, with the engine options of vlm-run's plugin."""

    def __init__(self, adapter: Adapter, load: Load) -> None:
        from swift.infer_engine import RequestConfig, VllmEngine

        options = adapter.engine_kwargs(**load.options)
        named = ("max_model_len", "max_num_seqs", "enforce_eager", "limit_mm_per_prompt")
        self._engine: Any = VllmEngine(
            options["model"],
            model_type="llava1_6_mistral_hf",
            template_type="llava1_6_mistral_hf",
            enable_prefix_caching=False,
            **{name: options[name] for name in named},
            engine_kwargs={"kv_cache_memory_bytes": options["kv_cache_memory_bytes"]},
        )
        self._config = RequestConfig(max_tokens=load.max_tokens, temperature=0)

    def ask(self, files: Sequence[bytes]) -> list[Result]:
        from swift.infer_engine import InferRequest

        requests = [
            InferRequest(
                messages=[{"role": "user", "content": f"<image>{QUERY}"}],
                images=[base64.b64encode(file).decode()],
            )
            for file in files
        ]
        with Watch() as watch:
            responses = self._engine.infer(requests, self._config, use_tqdm=False)
        return [
            Result(
                f"ms-swift {version('ms-swift')}",
                (watch.seconds,),
                sum(response.usage.prompt_tokens for response in responses),
                sum(response.usage.completion_tokens for response in responses),
                tuple(response.choices[0].message.content.lstrip() for response in responses),
                gpu_busy=watch.gpu_busy,
            )
        ]

    def stop(self) -> None:
        self._engine.engine.engine_core.shutdown()


def main() -> None:
    """Parse the command line, measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=128, help="images per round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, nargs=2, default=(256, 192), help="image size in pixels")
    parser.add_argument("--tokens", type=int, default=8, help="maximum tokens per answer")
    parser.add_argument("--renderers", type=int, help="number of renderer processes")
    asked = parser.parse_args()
    options = {"enable_prefix_caching": False}
    load = Load((asked.size,), asked.count, asked.tokens, asked.renderers, options, asked.rounds)
    ours, swift = compare(Registry.load("demo-llava"), load, (Ours, Swift))
    report = {
        "results": [ours.to_dict(), swift.to_dict()],
        "ratio": round(ours.images_per_second / swift.images_per_second, 3),
        "same_answers": round(swift.same_answers(ours), 3),
        "versions": {name: version(name) for name in ("ms-swift", "transformers", "torch")},
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
