"""Boxes are drawn where they are, and an image without boxes stays as it is."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vlm_run import Box, draw_boxes

GREY = (128, 128, 128)


def changed(image: Image.Image, x: int, y: int) -> bool:
    return image.getpixel((x, y)) != GREY


def test_the_edges_are_drawn_and_nothing_else() -> None:
    image = Image.new("RGB", (200, 100), GREY)
    drawn = draw_boxes(image, [Box("", 20, 10, 120, 60)])
    inside = {(x, y) for x in (20, 119) for y in range(10, 60)} | {
        (x, y) for x in range(20, 120) for y in (10, 59)
    }
    assert {(x, y) for x in range(200) for y in range(100) if changed(drawn, x, y)} == inside
    assert image.getcolors() == [(20_000, GREY)]  # the original


def test_a_box_of_the_whole_image_is_visible() -> None:
    drawn = draw_boxes(Image.new("RGB", (64, 48), GREY), [Box("", 0, 0, 64, 48)])
    assert all(changed(drawn, x, y) for x, y in [(0, 0), (63, 0), (0, 47), (63, 47)])


def test_a_label_is_above_its_box_or_inside_where_there_is_no_room() -> None:
    image = Image.new("RGB", (200, 100), GREY)
    assert changed(draw_boxes(image, [Box("cat", 20, 50, 120, 90)]), 22, 45)
    assert changed(draw_boxes(image, [Box("cat", 20, 0, 120, 90)]), 22, 5)


def test_boxes_with_the_same_label_have_the_same_colour() -> None:
    boxes = [Box("cat", 10, 60, 20, 70), Box("dog", 60, 60, 70, 70), Box("cat", 110, 60, 120, 70)]
    drawn = draw_boxes(Image.new("RGB", (200, 100), GREY), boxes)
    cat, dog, other_cat = (drawn.getpixel((int(box.left), 65)) for box in boxes)
    assert cat == other_cat != dog


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_any_image_can_be_drawn_on(mode: str) -> None:
    assert draw_boxes(Image.new(mode, (20, 20)), [Box("cat", 1, 1, 9, 9)]).mode == "RGB"


@settings(max_examples=50, deadline=None)
@given(
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    fractions=st.tuples(*[st.floats(0, 1)] * 4),
    label=st.text(),
)
def test_any_box_with_any_label_can_be_drawn(
    size: tuple[int, int], fractions: tuple[float, ...], label: str
) -> None:
    (width, height), (left, right), (top, bottom) = size, sorted(fractions[:2]), sorted(fractions[2:])
    box = Box(label, left * width, top * height, right * width, bottom * height)
    assert draw_boxes(Image.new("RGB", size, GREY), [box]).size == size
