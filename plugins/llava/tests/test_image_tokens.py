"""Image token counts: worked sizes, and the processor of vLLM itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from vlm_run import Registry
from vlm_run.errors import MediaError

LLAVA_1_5 = ["llava1_5-7b-instruct", "llava1_5-13b-instruct"]
LLAVA_1_6 = ["llava1_6-mistral-7b-instruct", "llava1_6-vicuna-7b-instruct", "llava1_6-vicuna-13b-instruct"]
# One model type of each architecture: within one, the image processor is the same.
ARCHITECTURES = [LLAVA_1_5[0], LLAVA_1_6[0]]

# LLaVA 1.5: 24 × 24 patches whatever the size. LLaVA 1.6: vLLM's LlavaNextProcessingInfo with the
# canvases of config.json on the hub.
SIZES = [(336, 336), (672, 672), (1000, 400), (640, 480), (1344, 1344)]
WORKED = {
    **{model_type: [576, 576, 576, 576, 576] for model_type in LLAVA_1_5},
    **{model_type: [1176, 2928, 2040, 2340, 2928] for model_type in LLAVA_1_6},
}
EXTREMES = [(1, 1), (2, 1), (1, 150), (150, 1), (1, 200), (200, 1), (4000, 30), (335, 337), (3000, 2000)]
# Beyond 200 to 1: LLaVA 1.5's processor would build a picture of 336 × 1,344,000 pixels from it.
NEEDLES = [(1, 4000), (4000, 1), (1, 201), (2010, 10)]


@pytest.mark.parametrize("model_type", WORKED)
def test_worked_sizes(model_type: str) -> None:
    adapter = Registry.load(model_type)
    assert [adapter.count_image_tokens(*size) for size in SIZES] == WORKED[model_type]


@pytest.mark.parametrize("model_type", LLAVA_1_6)
def test_no_picture_takes_more_than_a_thumbnail_and_four_tiles(model_type: str) -> None:
    @settings(deadline=None)
    @given(width=st.integers(1, 5000), height=st.integers(1, 5000))
    def holds(width: int, height: int) -> None:
        assume(max(width, height) <= 200 * min(width, height))
        assert 576 <= Registry.load(model_type).count_image_tokens(width, height) <= 2928

    holds()


@pytest.fixture(scope="session")
def processor(checkpoint: Callable[[str], Path]) -> Callable[[str], Any]:
    """A function that makes vLLM's processor for a model type."""
    pytest.importorskip("vllm")
    from vllm.config import ModelConfig
    from vllm.multimodal import MULTIMODAL_REGISTRY

    made: dict[str, Any] = {}

    def make(model_type: str) -> Any:
        if model_type not in made:
            config = ModelConfig(model=str(checkpoint(model_type)), dtype="float32")
            made[model_type] = MULTIMODAL_REGISTRY.create_processor(config)
        return made[model_type]

    return make


def _vllms_count(processor: Any, width: int, height: int) -> int:
    """The length of a prompt that is one placeholder, once vLLM has replaced it."""
    from vllm.multimodal.processing import ProcessorInputs, TimingContext

    items = processor.info.parse_mm_data({"image": [Image.new("RGB", (width, height))]})
    placeholder = processor.info.get_hf_config().image_token_index
    done = processor.apply(ProcessorInputs([placeholder], items), TimingContext(enabled=False))
    return len(done["prompt_token_ids"])


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_count_is_that_of_vllms_processor(model_type: str, processor: Callable[[str], Any]) -> None:
    adapter = Registry.load(model_type)
    theirs = processor(model_type)

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(width=st.integers(1, 1500), height=st.integers(1, 1500))
    def agrees(width: int, height: int) -> None:
        assume(max(width, height) <= 20 * min(width, height))  # LLaVA 1.5's enlarges narrow ones first
        assert adapter.count_image_tokens(width, height) == _vllms_count(theirs, width, height)

    for size in EXTREMES:
        assert adapter.count_image_tokens(*size) == _vllms_count(theirs, *size), size
    agrees()


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_count_is_that_of_vllms_arithmetic_for_any_size(
    model_type: str, processor: Callable[[str], Any]
) -> None:
    vision = Registry.load(model_type).spec.vision
    info = processor(model_type).info
    assert vision is not None

    @settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
    @given(width=st.integers(1, 10_000), height=st.integers(1, 10_000))
    def agrees(width: int, height: int) -> None:
        count = info.get_num_image_tokens(image_width=width, image_height=height)
        assert vision.count_image_tokens(width, height) == count

    for width, height in [*EXTREMES, *NEEDLES]:
        count = info.get_num_image_tokens(image_width=width, image_height=height)
        assert vision.count_image_tokens(width, height) == count
    agrees()


@pytest.mark.parametrize("size", NEEDLES)
@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_a_picture_too_narrow_to_be_enlarged_is_refused(model_type: str, size: tuple[int, int]) -> None:
    adapter = Registry.load(model_type)
    with pytest.raises(MediaError, match="too narrow"):
        adapter.count_image_tokens(*size)
    with pytest.raises(MediaError, match="too narrow"):
        adapter.preprocess(Image.new("RGB", size))
