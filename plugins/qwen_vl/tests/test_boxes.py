"""Coordinates of boxes, and the size that an image is resized to, which those of Qwen2.5-VL refer to."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from vlm_run import Box, BoxCoordinates, Conversation, ImageSize, Registry
from vlm_run.testing.checkpoint_fixtures import model_types_of

SIDES = st.integers(30, 1500)
AREAS = st.none() | st.integers(10_000, 1_000_000)
PATCH = 14


@pytest.mark.parametrize("model_type", model_types_of("vlm-run-qwen-vl"))
def test_only_qwen2_5_vl_writes_pixels(model_type: str) -> None:
    maximum = None if model_type.startswith("qwen2_5") else 1000
    assert Registry.load(model_type).spec.box_coordinates == BoxCoordinates(maximum=maximum)


def test_an_answer_of_qwen2_vl() -> None:
    adapter = Registry.load("qwen2-vl-7b-instruct")
    # The example of its technical report.
    answer = (
        "<|object_ref_start|>the eyes on a giraffe<|object_ref_end|>"
        "<|box_start|>(176,106),(232,160)<|box_end|>"
    )
    (box,) = adapter.parse_boxes(answer, [adapter.image_size(500, 2000)])
    assert box == Box("the eyes on a giraffe", 88, 212, 116, 320)


def test_the_resized_size_is_that_of_vllms_processor(checkpoint: Callable[[str], Path]) -> None:
    pytest.importorskip("vllm")
    from vlm_run.testing.vllm_processor import vllm_rendering

    model_type = "qwen2_5-vl-3b-instruct"
    adapter = Registry.load(model_type, checkpoint=checkpoint(model_type))
    with vllm_rendering(adapter) as render:

        @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
        @given(width=SIDES, height=SIDES, max_pixels=AREAS, on_its_side=st.booleans())
        def agrees(width: int, height: int, max_pixels: int | None, on_its_side: bool) -> None:
            assume(max(width, height) <= 20 * min(width, height))
            image = Image.new("RGB", (height, width) if on_its_side else (width, height))
            exif = image.getexif()
            exif[0x0112] = 6 if on_its_side else 1
            file = io.BytesIO()
            image.save(file, "JPEG", exif=exif)  # which may be decoded at a lower resolution
            conversation = Conversation.from_query("Where?", images=[file.getvalue()])
            rendered = render(conversation.with_pixel_bounds(max_pixels=max_pixels))
            (item,) = rendered.engine_input["mm_kwargs"]["image"]  # type: ignore[typeddict-item]
            _, rows, columns = item["image_grid_thw"].data.tolist()
            assert rendered.image_sizes == (ImageSize(width, height, (columns * PATCH, rows * PATCH)),)
            assert rendered.image_sizes == (adapter.image_size(width, height, max_pixels=max_pixels),)

        agrees()
