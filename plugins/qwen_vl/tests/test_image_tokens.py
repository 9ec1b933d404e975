"""Image token counts: worked sizes, and the processor of vLLM itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from vlm_run import Adapter, Limits, Registry
from vlm_run.errors import MediaError

# One model type of each generation: within one, the image processor is the same. The conformance suite
# compares counts for all model types.
GENERATIONS = [
    "qwen2-vl-2b-instruct",
    "qwen2_5-vl-3b-instruct",
    "qwen3-vl-8b-instruct",
]
# mm_processor_kwargs in vLLM's examples of offline inference with these models.
VLLM_EXAMPLE = Limits(min_pixels=784, max_pixels=1003520)

# transformers' smart_resize with the bounds of preprocessor_config.json on the hub.
SIZES = [(336, 336), (672, 672), (1000, 400), (640, 480), (1344, 1344)]
WORKED = {
    "qwen2-vl-7b-instruct": [144, 576, 504, 391, 2304],
    "qwen2_5-vl-7b-instruct": [144, 576, 504, 391, 2304],
    "qwen3-vl-8b-instruct": [100, 441, 372, 300, 1764],
}
WORKED_WITH_EXAMPLE_BOUNDS = {
    "qwen2-vl-7b-instruct": [144, 576, 504, 391, 1225],
    "qwen2_5-vl-7b-instruct": [144, 576, 504, 391, 1225],
    "qwen3-vl-8b-instruct": [100, 441, 372, 300, 961],
}
EXTREMES = [(1, 1), (1, 150), (150, 1), (1, 200), (200, 1), (4000, 30), (27, 29)]


@pytest.mark.parametrize("model_type", WORKED)
def test_worked_sizes(model_type: str) -> None:
    adapter = Registry.load(model_type)
    assert [adapter.count_image_tokens(*size) for size in SIZES] == WORKED[model_type]


@pytest.mark.parametrize("model_type", WORKED)
def test_worked_sizes_under_a_users_pixel_bounds(model_type: str) -> None:
    adapter = Registry.load(model_type, limits=VLLM_EXAMPLE)
    assert adapter.engine_kwargs()["mm_processor_kwargs"] == {"min_pixels": 784, "max_pixels": 1003520}
    assert [adapter.count_image_tokens(*size) for size in SIZES] == WORKED_WITH_EXAMPLE_BOUNDS[model_type]


@pytest.fixture
def load(checkpoint: Callable[[str], Path]) -> Callable[..., Adapter]:
    """A function that loads a model type with its checkpoint directory."""
    return lambda model_type, limits: Registry.load(
        model_type, checkpoint=checkpoint(model_type), limits=limits
    )


# With a size beyond the bounds' largest area.
@pytest.mark.parametrize(
    ("limits", "large"),
    [(Limits(), (5000, 4000)), (VLLM_EXAMPLE, (1700, 1300))],
    ids=["hub's bounds", "user's bounds"],
)
@pytest.mark.parametrize("model_type", GENERATIONS)
def test_count_is_that_of_vllms_processor(
    model_type: str,
    limits: Limits,
    large: tuple[int, int],
    load: Callable[..., Adapter],
    vllm_image_tokens: Any,
) -> None:
    adapter = load(model_type, limits)

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(width=st.integers(1, 1500), height=st.integers(1, 1500))
    def agrees(width: int, height: int) -> None:
        assume(max(width, height) <= 200 * min(width, height))
        assert [adapter.count_image_tokens(width, height)] == vllm_image_tokens(adapter, [(width, height)])

    for size in [*EXTREMES, large]:
        assert [adapter.count_image_tokens(*size)] == vllm_image_tokens(adapter, [size]), size
    agrees()


@pytest.mark.parametrize("size", [(1, 201), (4021, 20)])
def test_an_image_too_narrow_for_the_processor_is_refused(
    size: tuple[int, int], checkpoint: Callable[[str], Path]
) -> None:
    transformers = pytest.importorskip("transformers")
    processor = transformers.AutoImageProcessor.from_pretrained(checkpoint("qwen2-vl-2b-instruct"))
    with pytest.raises(ValueError, match="aspect ratio must be smaller than 200"):
        processor(images=Image.new("RGB", size))
    adapter = Registry.load("qwen2-vl-2b-instruct")
    with pytest.raises(MediaError, match="too narrow"):
        adapter.count_image_tokens(*size)
    with pytest.raises(MediaError, match="too narrow"):
        adapter.preprocess_image(Image.new("RGB", size))
