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

LLAVA_1_5 = ["llava1_5-7b-instruct", "llava1_5-13b-instruct"]
LLAVA_1_6 = ["llava1_6-mistral-7b-instruct", "llava1_6-vicuna-7b-instruct", "llava1_6-vicuna-13b-instruct"]
ONEVISION = "llava-onevision-qwen2-7b-ov"
# One model type of each architecture and language model, since vLLM reads both: within one, the
# image processor is the same.
KINDS = [LLAVA_1_5[0], LLAVA_1_6[0], "llava1_6-yi-34b-instruct", "llava-next-110b-hf", ONEVISION]

# LLaVA 1.5: 24 × 24 patches whatever the size. LLaVA 1.6: vLLM's LlavaNextProcessingInfo with the
# canvases of config.json on the hub.
SIZES = [(336, 336), (672, 672), (1000, 400), (640, 480), (1344, 1344)]
WORKED = {
    **{model_type: [576, 576, 576, 576, 576] for model_type in LLAVA_1_5},
    **{model_type: [1176, 2928, 2040, 2340, 2928] for model_type in LLAVA_1_6},
}
EXTREMES = [(1, 1), (2, 1), (1, 20), (150, 1), (1, 200), (200, 1), (4000, 30), (335, 337)]
# Larger than the largest canvas of LLaVA 1.5 and 1.6, and than that of OneVision.
LARGE, VERY_LARGE = (1600, 1100), (3000, 2000)
# On both sides of where OneVision begins to scale patches down.
AT_NINE_TILES = [(385, 383), (1153, 944), (944, 1153)]
# Beyond 200 to 1: LLaVA 1.5's processor would build an image of 336 × 1,344,000 pixels from it.
NEEDLES = [(1, 4000), (4000, 1), (1, 201), (2010, 10)]


@pytest.mark.parametrize("model_type", WORKED)
def test_worked_sizes(model_type: str) -> None:
    adapter = Registry.load(model_type)
    assert [adapter.count_image_tokens(*size) for size in SIZES] == WORKED[model_type]


@pytest.mark.parametrize("model_type", LLAVA_1_6)
def test_no_image_takes_more_than_a_thumbnail_and_four_tiles(model_type: str) -> None:
    adapter = Registry.load(model_type)

    @settings(deadline=None)
    @given(width=st.integers(1, 5000), height=st.integers(1, 5000))
    def holds(width: int, height: int) -> None:
        assume(max(width, height) <= 200 * min(width, height))
        assert 576 <= adapter.count_image_tokens(width, height) <= 2928

    holds()


@pytest.fixture
def load(checkpoint: Callable[[str], Path]) -> Callable[[str], Adapter]:
    """A function that loads a model type with its checkpoint directory, and room for several images."""

    def load(model_type: str) -> Adapter:
        limits = Limits(max_model_len=32768)
        return Registry.load(model_type, checkpoint=checkpoint(model_type), limits=limits)

    return load


@pytest.mark.parametrize("model_type", KINDS)
def test_count_is_that_of_vllms_processor(
    model_type: str, load: Callable[[str], Adapter], vllm_image_tokens: Any
) -> None:
    adapter = load(model_type)
    most = 3500 if model_type == ONEVISION else 1500  # past the largest canvas

    @settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
    @given(width=st.integers(1, most), height=st.integers(1, most))
    def agrees(width: int, height: int) -> None:
        assume(max(width, height) <= 20 * min(width, height))  # LLaVA 1.5's enlarges narrow ones first
        assert [adapter.count_image_tokens(width, height)] == vllm_image_tokens(adapter, [(width, height)])

    large = VERY_LARGE if model_type == ONEVISION else LARGE
    for size in [*EXTREMES, *AT_NINE_TILES, large]:
        assert [adapter.count_image_tokens(*size)] == vllm_image_tokens(adapter, [size]), size
    agrees()


@pytest.mark.parametrize("model_type", KINDS)
def test_several_images_cost_what_they_cost_alone(
    model_type: str, load: Callable[[str], Adapter], vllm_image_tokens: Any
) -> None:
    adapter, sizes = load(model_type), [(640, 480), (100, 900), (1153, 944)]
    assert vllm_image_tokens(adapter, sizes) == [adapter.count_image_tokens(*size) for size in sizes]


@pytest.mark.parametrize("model_type", KINDS)
def test_count_is_that_of_vllms_arithmetic_for_any_size(
    model_type: str, checkpoint: Callable[[str], Path]
) -> None:
    pytest.importorskip("vllm")
    from vllm.config import ModelConfig
    from vllm.multimodal import MULTIMODAL_REGISTRY

    config = ModelConfig(model=str(checkpoint(model_type)), dtype="float32")
    info: Any = MULTIMODAL_REGISTRY.create_processor(config).info
    vision = Registry.load(model_type).spec.vision
    assert vision is not None

    # Many sizes of each example, since drawing an example takes longer than counting.
    @settings(max_examples=20, deadline=None)
    @given(st.lists(st.tuples(st.integers(1, 10_000), st.integers(1, 10_000)), min_size=10, max_size=10))
    @example([*EXTREMES, *NEEDLES, LARGE, VERY_LARGE])
    def agrees(sizes: list[tuple[int, int]]) -> None:
        for width, height in sizes:
            count = info.get_num_image_tokens(image_width=width, image_height=height)
            assert vision.count_image_tokens(width, height) == count, (width, height)

    agrees()


@pytest.mark.parametrize("size", NEEDLES)
@pytest.mark.parametrize("model_type", KINDS)
def test_an_image_too_narrow_to_be_enlarged_is_refused(model_type: str, size: tuple[int, int]) -> None:
    adapter = Registry.load(model_type)
    with pytest.raises(MediaError, match="too narrow"):
        adapter.count_image_tokens(*size)
    with pytest.raises(MediaError, match="too narrow"):
        adapter.preprocess_image(Image.new("RGB", size))
