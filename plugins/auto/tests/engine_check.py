"""Answers of tiny random checkpoints on real vLLM: python plugins/auto/tests/engine_check.py [ARCHITECTURE …]

Each architecture runs in a process of its own. For each, two images are answered together with the general
plugin alone: token counts must be as counted without vLLM, the same images must give the same
log-probabilities, and other images others.
"""

from __future__ import annotations

import runpy
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ARCHITECTURES = (
    "AyaVisionForConditionalGeneration",
    "Cohere2VisionForConditionalGeneration",
    "Gemma3ForConditionalGeneration",
    "Gemma4ForConditionalGeneration",
    "Glm4vForConditionalGeneration",
    "Idefics3ForConditionalGeneration",
    "InternVLForConditionalGeneration",
    "LlavaForConditionalGeneration",
    "Mistral3ForConditionalGeneration",
    "PaddleOCRVLForConditionalGeneration",
    "Qwen2_5_VLForConditionalGeneration",
    "Qwen3VLForConditionalGeneration",
    "SmolVLMForConditionalGeneration",
)

# Small sizes for the dimensions that configurations have under these names.
SMALL = {
    "hidden_size": 64,
    "out_hidden_size": 64,
    "embed_dim": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,  # LLaVA takes the last but one
    "num_layers": 1,
    "depth": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "num_heads": 2,
    "head_dim": 32,
    "projection_dim": 64,
    "perceiver_config": None,
    "alignment_intermediate_size": 128,
    "fullatt_block_indexes": [0],
    "deepstack_visual_indexes": [0],
    "sliding_window": 4096,
    "tie_word_embeddings": True,
}


def write_weights(directory: Path, architecture: str) -> None:
    """Write a checkpoint of small dimensions with random weights."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import AutoConfig, AutoModelForImageTextToText

    architectures = runpy.run_path(str(HERE / "architectures.py"))
    architectures["write_checkpoint"](directory, architecture, small=SMALL)
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(directory))
    with torch.no_grad():  # large enough for an image to move the answer's probabilities
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    # In the format of published checkpoints, as transformers writes it, without the weights that are tied.
    model.to(torch.float32).save_pretrained(directory / "weights")
    weights = load_file(directory / "weights" / "model.safetensors")
    if model.config.vision_config.model_type in ("clip_vision_model", "siglip_vision_model"):
        # transformers 5 reads these towers under the names of published checkpoints, but does not write them.
        weights = {
            name.replace("vision_tower.", "vision_tower.vision_model."): value
            for name, value in weights.items()
        }
    save_file(weights, directory / "model.safetensors", {"format": "pt"})


def check(architecture: str, directory: Path) -> None:
    """Answer on vLLM.

    Raises:
        AssertionError: A count or a log-probability is not as it must be.
    """
    from PIL import Image

    from vlm_run import Limits, Registry
    from vlm_run.engine.tracing import trace
    from vlm_run.plugins.discovery import _entry_points, discover

    write_weights(directory, architecture)
    plugins = discover(point for point in _entry_points() if point.name == "auto")
    adapter = Registry.load(directory, plugins=plugins, limits=Limits(max_images=2, max_model_len=8192))
    wide = Image.linear_gradient("L").resize((200, 100)).convert("RGB")
    tall = Image.radial_gradient("L").resize((90, 160)).convert("RGB")
    counted = tuple(adapter.count_image_tokens(*image.size) for image in (wide, tall))
    options: dict[str, Any] = {
        "dtype": "float32",
        "enforce_eager": True,
        "max_num_seqs": 2,
        "max_num_batched_tokens": 8192,
        "kv_cache_memory_bytes": 2**28,
    }
    with adapter.engine(**options) as engine:
        asked = [{"query": "What differs?", "images": list(pair)} for pair in ((wide, tall), (wide, wide))]
        answers = engine.infer([asked[0]], {"max_tokens": 2})
        assert answers[0].usage.image_tokens == counted, (answers[0].usage.image_tokens, counted)
        first, same, other = trace(engine, [asked[0], asked[0], asked[1]], max_tokens=2)
    close = max(abs(a - b) for a, b in zip(first.logprobs, same.logprobs, strict=True))
    far = max(abs(a - b) for a, b in zip(first.logprobs, other.logprobs, strict=False))
    assert close < 1e-4, f"the same images differ by {close}"
    assert far > 1e-4, f"other images differ by only {far}"
    print(f"image tokens {counted}, same images within {close:.0e}, other images {far:.0e} apart")


def main(names: list[str]) -> int:
    if names[:1] == ["--one"]:
        with tempfile.TemporaryDirectory() as directory:
            check(names[1], Path(directory))
        return 0
    failed = 0
    for name in names or ARCHITECTURES:
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, __file__, "--one", name], capture_output=True, text=True, check=False
        )
        lines = (done.stdout if done.returncode == 0 else done.stderr or done.stdout).strip().splitlines()
        last = next(
            (line for line in reversed(lines) if line.startswith(("image tokens", "AssertionError"))), ""
        )
        outcome = "ok" if done.returncode == 0 else "FAILED"
        print(f"{outcome:6} {name} ({time.monotonic() - started:.0f} s): {last or lines[-1:]}", flush=True)
        failed += done.returncode != 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
