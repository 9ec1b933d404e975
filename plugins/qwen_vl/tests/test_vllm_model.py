"""Images reach the model as bytes, and the model sees the very same numbers as with vLLM's own Qwen2-VL."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vlm_run import Conversation, Registry

torch = pytest.importorskip("torch")
pytest.importorskip("vllm")

MODEL_TYPE = "qwen2-vl-2b-instruct"
RANDOM = np.random.default_rng(0)
IMAGES = [
    Image.fromarray(RANDOM.integers(0, 256, (height, width, 3), dtype=np.uint8))
    for width, height in [(84, 56), (300, 200), (57, 199)]
]


def rendered(directory: Path, **options: Any) -> dict[str, Any]:
    """The tensors that vLLM's processor makes of the images."""
    from vlm_run.engine.arguments import option_names
    from vlm_run.testing.vllm_processor import vllm_rendering

    if "mm_device_do_normalize" in option_names():  # newer vLLM would normalize on the device by itself
        options["mm_device_do_normalize"] = False
    adapter = Registry.load(MODEL_TYPE, checkpoint=directory, config=options)
    with vllm_rendering(adapter) as render:
        conversation = Conversation.from_query("What?", images=[*IMAGES])
        engine_input: Any = render(conversation).engine_input
    items = engine_input["mm_kwargs"]["image"]
    return {
        "prompt": engine_input["prompt_token_ids"],
        "pixels": [item["pixel_values"].data for item in items],
        "grids": [item["image_grid_thw"].data.tolist() for item in items],
    }


@pytest.fixture(scope="module")
def both(checkpoint: Callable[[str], Path]) -> tuple[dict[str, Any], dict[str, Any], Any]:
    from transformers import AutoImageProcessor

    directory = checkpoint(MODEL_TYPE)
    off = {"mm_processor_kwargs": {"do_normalize": True}}
    return rendered(directory), rendered(directory, **off), AutoImageProcessor.from_pretrained(directory)


def test_an_image_travels_in_an_eighth_of_the_bytes_of_float32(both: Any) -> None:
    ours, theirs, _ = both
    assert ours["prompt"] == theirs["prompt"]
    assert ours["grids"] == theirs["grids"]
    for small, large in zip(ours["pixels"], theirs["pixels"], strict=True):
        assert (small.dtype, large.dtype) == (torch.uint8, torch.float32)
        assert large.nbytes == 8 * small.nbytes


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_model_sees_the_same_numbers(both: Any, dtype: str) -> None:
    from vlm_run_qwen_vl.vllm_model import Normalization

    ours, theirs, processor = both
    normalize = Normalization(processor)
    for small, large in zip(ours["pixels"], theirs["pixels"], strict=True):
        assert torch.equal(normalize(small, getattr(torch, dtype)), large.to(getattr(torch, dtype)))


def test_rotary_embeddings_are_those_of_all_grids_and_computed_once_per_grid() -> None:
    from vlm_run_qwen_vl.vllm_model import CachedRotaryEmbedding

    computed: list[list[list[int]]] = []

    def compute(grids: list[list[int]]) -> tuple[Any, Any]:
        computed.append(grids)
        rows = torch.cat([torch.arange(t * h * w) + 1000 * h + w for t, h, w in grids])[:, None]
        return rows, -rows

    cached = CachedRotaryEmbedding(compute)
    for grids in ([[1, 4, 6]], [[1, 4, 6], [1, 2, 2], [1, 4, 6]]):
        for ours, theirs in zip(cached(grids), compute(grids), strict=True):
            assert torch.equal(ours, theirs)
    assert [each for each in computed if len(each) == 1].count([[1, 4, 6]]) == 2  # one of them is the test's
