"""Boxes are read from each form in which models write them, and from nothing else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm_run import Box, BoxCoordinates, ImageSize
from vlm_run.boxes import TAGS, parse_boxes

# Twice as wide as the coordinates go, and as tall.
SIZE = ImageSize(2000, 1000)
TO_1000 = BoxCoordinates(maximum=1000)
Y_FIRST = BoxCoordinates(maximum=1000, y_first=True)
CAT = Box("cat", 20, 20, 60, 40)  # (10, 20) to (30, 40) in the model's coordinates
DOG = Box("dog", 200, 200, 600, 400)
NAMELESS = Box("", 20, 20, 60, 40)


def parse(text: str, coordinates: BoxCoordinates = TO_1000) -> list[Box]:
    return list(parse_boxes(text, coordinates, [SIZE]))


JSON = '[{"bbox_2d": [10, 20, 30, 40], "label": "cat"}, {"bbox_2d": [100, 200, 300, 400], "label": "dog"}]'


@pytest.mark.parametrize(
    "text",
    [
        JSON,
        f"```json\n{JSON}\n```",
        f"Here they are:\n```json\n{JSON}\n```\nThat is all.",
        f"```json\n{JSON[:-1]},\n{{'bbox_2d': [1,",  # cut off
        f"I see {JSON} in the image.",
        JSON.replace("bbox_2d", "bbox"),
        f'{{"count": 2, "objects": {JSON}}}',
        JSON.replace('"cat"', '"cat", "attributes": {"fur": "black"}'),
        f"{JSON[:-1]}, "[:-2].replace('"cat"', '"cat", "attributes": {"fur": "black"}'),
    ],
)
def test_json(text: str) -> None:
    assert parse(text) == [CAT, DOG]


def test_json_with_several_boxes_of_one_label() -> None:
    boxes = parse('{"bbox": [[10, 20, 30, 40], [100, 200, 300, 400]], "label": "cat"}')
    assert [box.edges for box in boxes] == [CAT.edges, DOG.edges]
    assert {box.label for box in boxes} == {"cat"}


def test_the_label_of_json_is_optional_and_may_be_a_text_that_was_read() -> None:
    assert parse('{"bbox_2d": [10, 20, 30, 40]}') == [NAMELESS]
    assert parse('{"bbox_2d": [10, 20, 30, 40], "label": 7}') == [NAMELESS]
    assert parse('{"bbox_2d": [10, 20, 30, 40], "text_content": "cat"}') == [CAT]
    assert parse('{"bbox_2d": [10, 20, 30, 40], "label": " {cat} "}')[0].label == "{cat}"


@pytest.mark.parametrize(
    ("label", "end_of_label", "box", "end_of_box"),
    [
        ("<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>"),
        ("<ref>", "</ref>", "<box>", "</box>"),
        ("<|ref|>", "<|/ref|>", "<|det|>", "<|/det|>"),
    ],
)
def test_tags(label: str, end_of_label: str, box: str, end_of_box: str) -> None:
    cat, dog = f"{label}cat{end_of_label}", f"{label} dog {end_of_label}"
    corners, bracket = "(10,20),(30,40)", "[[10, 20, 30, 40]]"
    assert parse(f"{cat}{box}{corners}{end_of_box}") == [CAT]
    assert parse(f"{cat}{box}{bracket}{end_of_box}") == [CAT]
    both = f"The {cat}{box}{corners}{end_of_box} and the {dog}{box}(100,200),(300,400){end_of_box}<|im_end|>"
    assert parse(both) == [CAT, DOG]
    assert parse(f"{box}{corners}{end_of_box}") == [NAMELESS]


def test_a_label_is_of_all_boxes_that_follow_it_directly() -> None:
    box, other = "<box>(10,20),(30,40)</box>", "<box>(100,200),(300,400)</box>"
    assert [each.label for each in parse(f"<ref>cat</ref>{box}, {other}")] == ["cat", "cat"]
    assert [each.label for each in parse(f"<ref>cat</ref>{box} near {other}")] == ["cat", ""]
    assert [each.label for each in parse(f"<ref>cat</ref> is asleep. {box}")] == [""]
    listed = "<|ref|>cat<|/ref|><|det|>[[10, 20, 30, 40], [100, 200, 300, 400]]<|/det|>"
    assert [each.label for each in parse(listed)] == ["cat", "cat"]


@pytest.mark.parametrize(
    "text",
    ["[10, 20, 30, 40]", "[[10,20,30,40]]", "It is at [10.0, 20, 30, 40].", "```\n[10, 20, 30, 40]\n```"],
)
def test_four_numbers_in_brackets(text: str) -> None:
    assert parse(text) == [NAMELESS]


def test_numbers_in_brackets_are_no_boxes_where_there_are_others() -> None:
    assert parse(f"As in [1, 2, 3, 4]: {JSON}") == [CAT, DOG]
    assert parse("<|ref|>cat<|/ref|><|det|>[[10, 20, 30, 40]]<|/det|>\nSee [1, 2, 3, 4].") == [CAT]


def test_the_order_of_box_2d_is_read_only_for_a_model_that_documents_it() -> None:
    text = '[{"box_2d": [20, 10, 40, 30], "label": "cat"}]'
    assert parse(text, Y_FIRST) == [CAT]
    assert parse(text) == []
    assert parse(text.replace("box_2d", "bbox_2d"), Y_FIRST) == []
    assert parse("[20, 10, 40, 30]", Y_FIRST) == [NAMELESS]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "There are 3 cats.",
        "(10, 20), (30, 40)",  # two points
        "[10, 20, 30]",
        "[10, 20, 30, 40, 50]",
        "[a, b, c, d]",
        '{"bbox_2d": [10, 20, 30]}',
        '{"bbox_2d": [10, 20, 30, "40"]}',
        '{"bbox_2d": [10, 20, 30, true]}',
        '{"bbox_2d": null}',
        '{"bbox_2d": [10, 20, 30, NaN]}',
        '{"bbox_2d": [10, 20, 30, Infinity]}',
        f'{{"bbox_2d": [10, 20, 30, 1{"0" * 400}]}}',
        f'{{"bbox_2d": [10, 20, 30, 1{"0" * 5000}]}}',
        f"[10, 20, 30, 1{'0' * 400}]",
        '{"point_2d": [10, 20, 30, 40]}',
        "<box>(10,20)</box>",
        "<ref>cat</ref>",
        "</box><box></box>",
        "<|box_start|>(10,20),(30,40)",  # not ended
        "[" * 10_000,
        '{"bbox_2d": [30, 20, 10, 40]}',  # right of its right edge
        '{"bbox_2d": [10, 20, 10, 40]}',  # without area
        '{"bbox_2d": [1100, 20, 1200, 40]}',  # outside
    ],
)
def test_anything_else_is_no_box(text: str) -> None:
    assert parse(text) == []


def test_what_is_outside_the_image_is_cut_off() -> None:
    assert parse("[-10, -10, 500, 1010]") == [Box("", 0, 0, 1000, 1000)]


def test_a_malformed_box_costs_no_other() -> None:
    assert parse(JSON.replace("[100, 200, 300, 400]", "[100, 200]")) == [CAT]


def test_with_several_images_a_box_is_of_none_in_particular() -> None:
    (box,) = parse_boxes("[10, 20, 30, 40]", TO_1000, [SIZE, SIZE])
    assert (box.edges, box.image_index) == (CAT.edges, None)
    assert parse_boxes("[10, 20, 30, 40]", TO_1000, [SIZE, ImageSize(640, 480)]) == ()
    assert parse_boxes("[10, 20, 30, 40]", TO_1000, []) == ()


@pytest.mark.parametrize(
    "piece",
    [
        "[",
        "{",
        '{"',
        '{"a":[',
        "<ref>",
        "<box>",
        "(",
        "[1",
        "[1,2,3,4",
        '"  ',
        "\\",
        "```",
        '{"bbox_2d": [',
        '"{"',
    ],
)
@pytest.mark.timeout(60)  # where a step is quadratic, it takes minutes
def test_a_long_answer_takes_a_moment(piece: str) -> None:
    parse(piece * 100_000)
    parse(f'{{"a": "{piece * 100_000}')


NUMBERS = st.lists(st.integers(-2000, 2000) | st.floats() | st.text(max_size=3), max_size=5)
FORMS = st.one_of(
    st.text(),
    st.sampled_from(
        [*TAGS, "```json\n", "```", "[", "]", "{", "}", '"', "(1,2),(3,4)", "[1, 2, 3, 4]", "\ud800"]
    ),
    st.builds(lambda value: json.dumps({"bbox_2d": value, "label": "\ud800"}), NUMBERS),
    st.builds(str, NUMBERS),
)


@given(st.lists(FORMS, max_size=12).map("".join), st.booleans())
def test_any_text_has_only_boxes_inside_the_image(text: str, y_first: bool) -> None:
    for box in parse(text, Y_FIRST if y_first else TO_1000):
        assert 0 <= box.left < box.right <= SIZE.width
        assert 0 <= box.top < box.bottom <= SIZE.height
        json.dumps(box.to_dict(), allow_nan=False, ensure_ascii=False).encode()
