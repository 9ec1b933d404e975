"""Boxes of the original image become what a model would write, and are the same boxes again when read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vlm_run import Box, BoxCoordinates, Registry
from vlm_run.adapter import Adapter
from vlm_run.boxes import ImageSize, parse_boxes

SIDES = st.integers(20, 5000)
FRACTIONS = st.lists(st.tuples(*[st.floats(0, 1)] * 4), min_size=5, max_size=5)

FORMS = {
    "JSON": '```json\n[{{"bbox_2d": [{}, {}, {}, {}], "label": "cat"}}]\n```',
    "Qwen2-VL": "<|object_ref_start|>cat<|object_ref_end|><|box_start|>({},{}),({},{})<|box_end|>",
    "Qwen-VL": "<ref>cat</ref><box>({},{}),({},{})</box>",
    "InternVL": "<ref>cat</ref><box>[[{}, {}, {}, {}]]</box>",
    "DeepSeek": "<|ref|>cat<|/ref|><|det|>[[{}, {}, {}, {}]]<|/det|>",
    "brackets": "[{}, {}, {}, {}]",
}


@pytest.mark.parametrize(("maximum", "decimals"), [(1000, 0), (999, 0), (1, 3), (None, 0)])
@settings(max_examples=50)
@given(
    form=st.sampled_from(list(FORMS.values())),
    width=SIDES,
    height=SIDES,
    resized=st.tuples(SIDES, SIDES),
    boxes=FRACTIONS,
)
def test_a_box_comes_back_within_half_a_unit(
    maximum: float | None,
    decimals: int,
    form: str,
    width: int,
    height: int,
    resized: tuple[int, int],
    boxes: list[tuple[float, ...]],
) -> None:
    whole = resized if maximum is None else (maximum, maximum)
    units = [width / whole[0] / 10**decimals, height / whole[1] / 10**decimals] * 2
    assume(all(unit > 0.02 for unit in units))  # pixels have two decimals
    size = ImageSize(width, height, resized)
    for where in boxes:
        x1, x2 = sorted(where[:2])
        y1, y2 = sorted(where[2:])
        written = [
            round(fraction * side, decimals or None)
            for fraction, side in zip((x1, y1, x2, y2), whole * 2, strict=True)
        ]
        if written[0] >= written[2] or written[1] >= written[3]:
            continue
        (box,) = parse_boxes(form.format(*written), BoxCoordinates(maximum=maximum), [size])
        originals = (x1 * width, y1 * height, x2 * width, y2 * height)
        for edge, original, unit in zip(box.edges, originals, units, strict=True):
            assert abs(edge - original) <= unit / 2 + 0.01


def test_pixels_of_the_resized_image_need_its_size() -> None:
    coordinates = BoxCoordinates(maximum=None)
    assert parse_boxes("[10, 20, 30, 40]", coordinates, [ImageSize(640, 480, None)]) == ()
    (box,) = parse_boxes("[10, 20, 30, 40]", coordinates, [ImageSize(640, 480, (320, 120))])
    assert box.edges == (20, 80, 60, 160)


def test_coordinates_in_words() -> None:
    assert BoxCoordinates(maximum=1000).description == "0 to 1000, for any image size"
    assert BoxCoordinates(maximum=1).description == "fractions of width and height, 0 to 1"
    assert BoxCoordinates(maximum=None).description == "pixels of the resized image"
    assert "y before x" in BoxCoordinates(maximum=1000, y_first=True).description


def test_the_example_for_a_servers_answer() -> None:
    page = (Path(__file__).parents[2] / "docs/boxes.md").read_text()
    *_, example = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, object] = {}
    exec(example, names)
    assert names["boxes"] == (Box("cat", 19.2, 21.6, 57.6, 43.2),)


def test_a_model_that_documents_no_coordinates_has_no_boxes() -> None:
    adapter = Registry.load("demo-llava")
    assert adapter.parse_boxes("[10, 20, 30, 40]", [adapter.image_size(640, 480)]) == ()


def test_an_answer_of_a_server_is_read_with_the_bounds_of_its_request() -> None:
    adapter = Registry.load("qwen2_5-vl-7b-instruct")
    whole = adapter.image_size(1000, 500)
    assert whole.resized == (1008, 504)
    bounded = adapter.image_size(1000, 500, max_pixels=100_000)
    assert bounded.resized == (420, 196)
    answer = '[{"bbox_2d": [105, 49, 210, 98], "label": "cat"}]'
    (box,) = adapter.parse_boxes(answer, [bounded])
    assert box.edges == (250, 125, 500, 250)
    assert adapter.parse_boxes(answer, [whole]) != (box,)


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        (
            '{"bbox_2d": [1, 1, 9, 9], "label": "draft"}</think>{"bbox_2d": [1, 1, 9, 9], "label": "cat"}',
            "cat",
        ),
        ('{"bbox_2d": [1, 1, 9, 9], "label": "cat"}', "cat"),
    ],
)
def test_only_the_text_after_reasoning_is_read(answer: str, label: str) -> None:
    adapter: Adapter = Registry.load("qwen3-vl-8b-thinking")
    (box,) = adapter.parse_boxes(answer, [adapter.image_size(640, 480)])
    assert box.label == label
