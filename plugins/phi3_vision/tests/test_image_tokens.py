"""Image token counts: worked sizes, the published arithmetic, and what vLLM makes of an image."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from vlm_run import Registry
from vlm_run.errors import MediaError
from vlm_run_phi3_vision.vision import HDTransform

MODEL_TYPE = "phi3-vision-128k-instruct"
# calc_num_image_tokens_from_image_size as published; the last size is vLLM's own test's.
SIZES = [(336, 336), (672, 672), (1000, 400), (640, 480), (1344, 1344), (50, 8000), (1300, 876)]
WORKED = {
    16: [2509, 2509, 1621, 1921, 2509, 2653, 1921],
    4: [757, 757, 457, 757, 757, 781, 757],
}
EXTREMES = [(1, 1), (1, 200), (200, 1), (20, 4000), (4000, 20), (335, 337), (3000, 2000)]


@pytest.mark.parametrize("num_crops", WORKED)
def test_worked_sizes(num_crops: int) -> None:
    facts = HDTransform(num_crops=num_crops)
    assert [facts.count_image_tokens(*size) for size in SIZES] == WORKED[num_crops]


@pytest.mark.parametrize(("model_type", "num_crops"), [(MODEL_TYPE, 16), ("phi3_5-vision-instruct", 4)])
def test_each_checkpoint_has_its_number_of_crops(model_type: str, num_crops: int) -> None:
    adapter = Registry.load(model_type)
    assert [adapter.count_image_tokens(*size) for size in SIZES] == WORKED[num_crops]


def _published(width: int, height: int, num_crops: int) -> tuple[tuple[int, int], int]:
    """Columns and rows of crops, and tokens, step by step as in processing_phi3_v.py."""
    transposed = width < height
    if transposed:
        width, height = height, width
    ratio = width / height
    scale = 1
    while scale * math.ceil(scale / ratio) <= num_crops:
        scale += 1
    scale -= 1
    new_width = int(scale * 336)
    new_height = int(new_width / ratio)
    new_height = int(math.ceil(new_height / 336) * 336)
    if transposed:
        new_width, new_height = new_height, new_width
    tokens = int((new_height // 336 * new_width // 336 + 1) * 144 + 1 + (new_height // 336 + 1) * 12)
    return (new_width // 336, new_height // 336), tokens


# Many sizes of each example, since drawing an example takes longer than counting.
@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 6000), st.integers(1, 6000)), min_size=10, max_size=10),
    num_crops=st.integers(1, 16),
)
def test_grid_and_count_are_those_of_the_published_arithmetic(
    sizes: list[tuple[int, int]], num_crops: int
) -> None:
    facts = HDTransform(num_crops=num_crops)
    for width, height in sizes:
        if max(width, height) > 200 * min(width, height):
            continue
        (columns, rows), tokens = _published(width, height, num_crops)
        assert facts.grid(width, height) == (columns, rows)
        assert facts.count_image_tokens(width, height) == tokens
        assert 1 <= columns * rows <= num_crops


def test_fewer_crops_may_be_asked_for_by_the_processors_own_option() -> None:
    facts = Registry.load(MODEL_TYPE).spec.vision
    assert facts is not None
    assert facts.with_processor_kwargs({"num_crops": 4}).count_image_tokens(1300, 876) == 757


def _vllms_count(processor: Any, width: int, height: int) -> int:
    """The length of a prompt that is one placeholder, once vLLM has replaced it."""
    from vllm.multimodal.processing import ProcessorInputs, TimingContext

    placeholder = processor.info.get_tokenizer().convert_tokens_to_ids("<|image|>")
    items = processor.info.parse_mm_data({"image": [Image.new("RGB", (width, height))]})
    done = processor.apply(ProcessorInputs([placeholder], items), TimingContext(enabled=False))
    return len(done["prompt_token_ids"])


@pytest.mark.parametrize("num_crops", WORKED)
def test_count_is_that_of_vllms_processor(num_crops: int, vllm_processor: Callable[[int], Any]) -> None:
    facts = HDTransform(num_crops=num_crops)
    processor = vllm_processor(num_crops)

    @settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
    @given(width=st.integers(1, 1500), height=st.integers(1, 1500))
    def agrees(width: int, height: int) -> None:
        assume(max(width, height) <= 200 * min(width, height))
        assert facts.count_image_tokens(width, height) == _vllms_count(processor, width, height)

    for size in EXTREMES:
        assert facts.count_image_tokens(*size) == _vllms_count(processor, *size), size
    agrees()


@pytest.mark.parametrize("size", EXTREMES)
def test_count_is_the_number_of_features_that_vllms_model_makes(size: tuple[int, int]) -> None:
    phi3v = pytest.importorskip("vllm.model_executor.models.phi3v")
    import torch

    from vlm_run_phi3_vision.processing import ImageProcessor

    embedding = phi3v.Phi3HDImageEmbedding.__new__(phi3v.Phi3HDImageEmbedding)
    torch.nn.Module.__init__(embedding)  # without the vision tower, whose features are given
    embedding.hd_transform_order = "sub_glb"
    embedding.glb_GN = torch.nn.Parameter(torch.zeros(1, 1, 4096))
    embedding.sub_GN = torch.nn.Parameter(torch.zeros(1, 1, 1, 4096))
    embedding.img_projection = torch.nn.Linear(4096, 1)
    inputs = ImageProcessor(num_crops=4)([Image.new("RGB", size)])
    features = torch.zeros(*inputs["pixel_values"].shape[:2], 576, 1024)
    (made,) = embedding.hd_feature_transform(features, inputs["image_sizes"])
    assert len(made) == HDTransform(num_crops=4).count_image_tokens(*size)


@pytest.mark.parametrize("size", [(1, 4000), (4000, 1), (1, 201)])
def test_an_image_too_narrow_for_a_crop_is_refused(size: tuple[int, int]) -> None:
    adapter = Registry.load(MODEL_TYPE)
    with pytest.raises(MediaError, match="too narrow"):
        adapter.count_image_tokens(*size)
    with pytest.raises(MediaError, match="too narrow"):
        adapter.preprocess_image(Image.new("RGB", size))
