"""Sizes after resizing and image tokens: worked examples, and transformers' own functions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from vlm_run import AnyResolution, DynamicResolution, FixedResolution, VisionFacts
from vlm_run.errors import MediaError

# The facts of published checkpoints: LLaVA 1.5, LLaVA 1.6, Qwen2-VL and Qwen3-VL.
LLAVA = FixedResolution(image_size=336, patch_size=14)
LLAVA_NEXT = AnyResolution(
    image_size=336,
    patch_size=14,
    image_grid_pinpoints=((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)),
)
QWEN2 = DynamicResolution(patch_size=14, merge_size=2, min_pixels=3136, max_pixels=12845056)
QWEN3 = DynamicResolution(patch_size=16, merge_size=2, min_pixels=65536, max_pixels=16777216)

SIZES = [(336, 336), (672, 672), (1000, 400), (640, 480), (1344, 1344)]
SIDES = st.integers(1, 6000)
MANY_SIZES = st.lists(st.tuples(SIDES, SIDES), min_size=10, max_size=10)


@pytest.mark.parametrize(
    ("facts", "counts"),
    [
        (LLAVA, [576, 576, 576, 576, 576]),
        (LLAVA_NEXT, [1176, 2928, 2040, 2340, 2928]),
        (QWEN2, [144, 576, 504, 391, 2304]),
        (QWEN3, [100, 441, 372, 300, 1764]),
    ],
    ids=["LLaVA", "LLaVA-NeXT", "Qwen2-VL", "Qwen3-VL"],
)
def test_worked_counts(facts: VisionFacts, counts: list[int]) -> None:
    assert [facts.count_image_tokens(*size) for size in SIZES] == counts


@pytest.mark.parametrize(
    ("facts", "size", "resized"),
    [
        (LLAVA, (1000, 400), (336, 336)),
        (LLAVA_NEXT, (1000, 400), (1008, 336)),
        (LLAVA_NEXT, (400, 1000), (336, 1008)),
        (LLAVA_NEXT, (640, 480), (672, 672)),
        (QWEN2, (1000, 400), (1008, 392)),
        (QWEN2, (1, 1), (56, 56)),
        (QWEN3, (640, 480), (640, 480)),
        (QWEN3, (1, 1), (256, 256)),
    ],
)
def test_worked_sizes(facts: VisionFacts, size: tuple[int, int], resized: tuple[int, int]) -> None:
    assert facts.resized(*size) == resized


# --- Qwen


# Many sizes of each example here, since drawing an example takes longer than the arithmetic.
@settings(max_examples=50)
@given(
    sizes=MANY_SIZES,
    patch_size=st.sampled_from([14, 16]),
    bounds=st.sampled_from([(3136, 12845056), (784, 1003520), (65536, 16777216), (50176, 50176)]),
)
def test_dynamic_resolution_is_transformers_smart_resize(
    sizes: list[tuple[int, int]], patch_size: int, bounds: tuple[int, int]
) -> None:
    qwen = pytest.importorskip("transformers.models.qwen2_vl.image_processing_qwen2_vl")
    minimum, maximum = bounds
    facts = DynamicResolution(patch_size=patch_size, merge_size=2, min_pixels=minimum, max_pixels=maximum)
    for width, height in sizes:
        if max(width, height) > 200 * min(width, height):
            continue
        theirs = qwen.smart_resize(
            height, width, factor=2 * patch_size, min_pixels=minimum, max_pixels=maximum
        )
        assert facts.resized(width, height) == theirs[::-1]


@given(width=SIDES, height=SIDES)
def test_dynamic_resolution_is_made_of_whole_tokens_within_its_bounds(width: int, height: int) -> None:
    assume(max(width, height) <= 200 * min(width, height))
    new_width, new_height = QWEN2.resized(width, height)
    assert new_width % 28 == new_height % 28 == 0
    assert QWEN2.min_pixels <= new_width * new_height <= QWEN2.max_pixels
    assert QWEN2.count_image_tokens(width, height) == new_width * new_height // 28**2


# --- LLaVA-NeXT


def _of_transformers(width: int, height: int) -> int:
    """The count of transformers' processor, of which only its arithmetic is needed."""
    from transformers.models.llava_next.image_processing_llava_next import LlavaNextImageProcessor
    from transformers.models.llava_next.processing_llava_next import LlavaNextProcessor

    processor = object.__new__(LlavaNextProcessor)
    processor.image_processor = LlavaNextImageProcessor(image_grid_pinpoints=LLAVA_NEXT.image_grid_pinpoints)
    processor.patch_size = 14
    processor.num_additional_image_tokens = 1
    count: int = processor._get_number_of_features(height, width, 336, 336)
    return count - 1  # the class token, which `vision_feature_select_strategy` "default" drops


@settings(max_examples=30)
@given(MANY_SIZES)
def test_any_resolution_is_transformers_llava_next(sizes: list[tuple[int, int]]) -> None:
    pytest.importorskip("transformers")
    for size in sizes:
        assert LLAVA_NEXT.count_image_tokens(*size) == _of_transformers(*size)


@settings(max_examples=10)
@given(MANY_SIZES)
def test_any_resolution_chooses_one_of_its_canvases_and_has_the_thumbnail(
    sizes: list[tuple[int, int]],
) -> None:
    for size in sizes:
        assert LLAVA_NEXT.resized(*size)[::-1] in LLAVA_NEXT.image_grid_pinpoints
        assert 576 <= LLAVA_NEXT.count_image_tokens(*size) <= 576 + 48 * 48 + 48


# --- Extremes


@pytest.mark.parametrize("facts", [LLAVA, LLAVA_NEXT, QWEN2, QWEN3], ids=lambda facts: type(facts).__name__)
@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1), (20, 4000), (4000, 20)])
def test_images_up_to_200_to_1_are_taken(facts: VisionFacts, size: tuple[int, int]) -> None:
    facts.check_size(*size)
    assert facts.count_image_tokens(*size) > 0


@pytest.mark.parametrize("facts", [LLAVA, LLAVA_NEXT, QWEN2, QWEN3], ids=lambda facts: type(facts).__name__)
@pytest.mark.parametrize("size", [(1, 4000), (4000, 1), (1, 201), (4001, 20)])
def test_narrower_images_are_refused(facts: VisionFacts, size: tuple[int, int]) -> None:
    with pytest.raises(MediaError, match="is too narrow for this model, whose limit is 200 to 1") as caught:
        facts.check_size(*size)
    assert f"{size[0]} × {size[1]} pixels" in str(caught.value)


@pytest.mark.parametrize("facts", [LLAVA, LLAVA_NEXT, QWEN2, QWEN3], ids=lambda facts: type(facts).__name__)
@given(width=SIDES, height=SIDES)
def test_no_image_takes_more_tokens_than_the_largest(facts: VisionFacts, width: int, height: int) -> None:
    largest = facts.size_with_most_tokens()
    assert largest is not None
    assert facts.count_image_tokens(width, height) <= facts.count_image_tokens(*largest)


def test_a_model_may_have_another_limit() -> None:
    FixedResolution(image_size=336, patch_size=14, max_aspect_ratio=5000).check_size(1, 4000)


# --- Options of the processor


def test_processor_options_replace_facts_of_the_same_name() -> None:
    kwargs: dict[str, Any] = {"max_pixels": 1003520, "fps": 1, "num_crops": 4}
    facts = QWEN2.with_processor_kwargs(kwargs)
    assert facts == DynamicResolution(patch_size=14, merge_size=2, min_pixels=3136, max_pixels=1003520)
    assert [facts.count_image_tokens(*size) for size in SIZES] == [144, 576, 504, 391, 1225]


def test_the_bounds_may_be_written_as_a_size_too() -> None:
    size = {"shortest_edge": 784, "longest_edge": 1003520}
    assert QWEN2.with_processor_kwargs({"size": size}) == QWEN2.bounded(None, 1003520).model_copy(
        update={"min_pixels": 784}
    )
    both = QWEN2.with_processor_kwargs({"size": size, "max_pixels": 50176, "min_pixels": None})
    assert (both.min_pixels, both.max_pixels) == (784, 50176)


# --- Bounds of one image


@pytest.mark.parametrize(
    ("given", "bounds"),
    [
        ((None, None), (3136, 12845056)),
        ((6272, 50176), (6272, 50176)),
        ((None, 50176), (3136, 50176)),
        ((1, 10**9), (3136, 12845056)),  # no further than the engine's
        ((None, 100), (3136, 3136)),
        ((10**9, None), (12845056, 12845056)),
    ],
)
def test_bounds_of_an_image_are_within_those_of_the_engine(
    given: tuple[int | None, int | None], bounds: tuple[int, int]
) -> None:
    facts = QWEN2.bounded(*given)
    assert (facts.min_pixels, facts.max_pixels) == bounds


@pytest.mark.parametrize("facts", [LLAVA, LLAVA_NEXT])
def test_a_model_without_pixel_bounds_refuses_them(facts: VisionFacts) -> None:
    with pytest.raises(MediaError, match="does not support min_pixels"):
        facts.bounded(None, 50176)


def test_options_without_a_fact_change_nothing() -> None:
    assert QWEN2.with_processor_kwargs({"fps": 1}) is QWEN2


def test_an_option_of_the_wrong_type_is_refused() -> None:
    with pytest.raises(ValidationError, match="max_pixels"):
        QWEN2.with_processor_kwargs({"max_pixels": "many"})


def test_another_way_to_see_is_a_subclass() -> None:
    class OneToken(VisionFacts):
        side: int

        def resized(self, width: int, height: int) -> tuple[int, int]:
            return self.side, self.side

        def count_image_tokens(self, width: int, height: int) -> int:
            return 1

    facts = OneToken(side=8).with_processor_kwargs({"side": 16})
    assert (facts.resized(100, 100), facts.count_image_tokens(100, 100)) == ((16, 16), 1)


def test_facts_without_a_way_to_count_are_no_facts() -> None:
    with pytest.raises(TypeError, match="abstract"):
        VisionFacts()  # type: ignore[abstract]


SIDES = st.tuples(st.integers(1, 6000), st.integers(1, 6000))


@given(SIDES, st.sampled_from([2, 4, 8]), st.sampled_from(["fixed", "any", "dynamic"]))
def test_an_image_decoded_at_a_lower_resolution_still_shrinks_to_the_same(
    size: tuple[int, int], divisor: int, kind: str
) -> None:
    facts: VisionFacts = {
        "fixed": FixedResolution(image_size=336, patch_size=14),
        "any": AnyResolution(image_size=336, patch_size=14, image_grid_pinpoints=((336, 672), (672, 672))),
        "dynamic": DynamicResolution(patch_size=14, merge_size=2, min_pixels=3136, max_pixels=1003520),
    }[kind].model_copy(update={"downscaled_decode": True})
    smaller = (-(-size[0] // divisor), -(-size[1] // divisor))
    if facts.allows_downscaled_decode(size, smaller):
        assert facts.resized(*smaller) == facts.resized(*size)
        assert facts.count_image_tokens(*smaller) == facts.count_image_tokens(*size)
        assert min(side / seen for side, seen in zip(smaller, facts.resized(*size), strict=True)) >= 2


@pytest.mark.parametrize(("smaller", "may"), [((4032, 3024), True), ((2016, 1512), False)])
def test_twice_what_the_encoder_sees_is_kept(smaller: tuple[int, int], may: bool) -> None:
    facts = DynamicResolution(
        patch_size=14, merge_size=2, min_pixels=3136, max_pixels=1003520, downscaled_decode=True
    )
    assert facts.resized(8064, 6048) == (1148, 840)
    assert facts.allows_downscaled_decode((8064, 6048), smaller) is may


PAGES = {
    "fixed": (FixedResolution(image_size=336, patch_size=14, downscaled_decode=True), (336, 476)),
    "any": (
        AnyResolution(
            image_size=336,
            patch_size=14,
            image_grid_pinpoints=((336, 672), (672, 336), (672, 672)),
            downscaled_decode=True,
        ),
        (672, 951),
    ),
    "dynamic": (
        DynamicResolution(
            patch_size=14, merge_size=2, min_pixels=3136, max_pixels=1003520, downscaled_decode=True
        ),
        (840, 1176),
    ),
    "dynamic, enlarged": (
        DynamicResolution(
            patch_size=14, merge_size=2, min_pixels=4_000_000, max_pixels=8_000_000, downscaled_decode=True
        ),
        (1708, 2380),
    ),
}


@pytest.mark.parametrize("kind", PAGES)
def test_a_page_is_rendered_at_the_size_that_the_model_sees(kind: str) -> None:
    facts, size = PAGES[kind]
    assert facts.page_size(1239, 1754) == size  # A4 at 150 pixels per inch
    assert facts.resized(*size) == facts.resized(1239, 1754)


@given(SIDES, st.sampled_from([*PAGES]))
def test_a_page_costs_what_it_costs_at_its_usual_size(usual: tuple[int, int], kind: str) -> None:
    facts, _ = PAGES[kind]
    if max(usual) > 200 * min(usual):
        with pytest.raises(MediaError, match="too narrow"):
            facts.page_size(*usual)
        return
    size = facts.page_size(*usual)
    assert facts.resized(*size) == facts.resized(*usual)
    assert facts.count_image_tokens(*size) == facts.count_image_tokens(*usual)
    seen = facts.resized(*usual)
    assert size == usual or all(side >= target for side, target in zip(size, seen or size, strict=True))


def test_a_page_keeps_its_pixels_where_the_plugin_needs_them() -> None:
    facts, _ = PAGES["fixed"]
    assert facts.model_copy(update={"downscaled_decode": False}).page_size(1239, 1754) == (1239, 1754)
