"""Image token counts: worked sizes, and the processor of vLLM itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
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
EXAMPLE = {"min_pixels": 784, "max_pixels": 1003520}
VLLM_EXAMPLE = Limits(**EXAMPLE)
BOUNDS: list[tuple[Limits, dict[str, int]]] = [(Limits(), {}), (VLLM_EXAMPLE, EXAMPLE)]

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
    assert adapter.engine_kwargs()["mm_processor_kwargs"] == EXAMPLE
    assert [adapter.count_image_tokens(*size) for size in SIZES] == WORKED_WITH_EXAMPLE_BOUNDS[model_type]


@pytest.fixture
def load(checkpoint: Callable[[str], Path]) -> Callable[..., Adapter]:
    """A function that loads a model type with its checkpoint directory."""
    return lambda model_type, limits: Registry.load(
        model_type, checkpoint=checkpoint(model_type), limits=limits
    )


@pytest.mark.parametrize("limits", [Limits(), VLLM_EXAMPLE], ids=["hub's bounds", "user's bounds"])
@pytest.mark.parametrize("model_type", GENERATIONS)
def test_count_is_that_of_vllms_processor(
    model_type: str, limits: Limits, load: Callable[..., Adapter], vllm_image_tokens: Any
) -> None:
    adapter = load(model_type, limits)

    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
    @given(width=st.integers(1, 1100), height=st.integers(1, 1100))
    def agrees(width: int, height: int) -> None:
        assume(max(width, height) <= 200 * min(width, height))
        assert [adapter.count_image_tokens(width, height)] == vllm_image_tokens(adapter, [(width, height)])

    for size in [*EXTREMES, (1700, 1300)]:  # the last is larger than the user's bounds allow
        assert [adapter.count_image_tokens(*size)] == vllm_image_tokens(adapter, [size]), size
    agrees()


@pytest.mark.parametrize("model_type", GENERATIONS)
def test_count_is_that_of_the_processors_arithmetic_for_any_size(
    model_type: str, load: Callable[..., Adapter]
) -> None:
    """Also of images larger than the hub's bounds allow, which take long to process."""
    transformers = pytest.importorskip("transformers")
    processor = transformers.AutoImageProcessor.from_pretrained(load(model_type, Limits()).source)
    engines = [(load(model_type, limits), bounds) for limits, bounds in BOUNDS]

    @given(width=st.integers(1, 8000), height=st.integers(1, 8000), engine=st.sampled_from(engines))
    @example(5000, 4000, engines[0])
    @example(5000, 4000, engines[1])
    def agrees(width: int, height: int, engine: tuple[Adapter, dict[str, int]]) -> None:
        assume(max(width, height) <= 200 * min(width, height))
        adapter, bounds = engine
        patches = processor.get_number_of_image_patches(height, width, bounds)
        assert adapter.count_image_tokens(width, height) == patches // 4

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
