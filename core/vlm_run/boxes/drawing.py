"""Draws boxes with their labels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from vlm_run.boxes.coordinates import Box
from vlm_run.errors import printable

if TYPE_CHECKING:
    from PIL import Image

# Okabe and Ito's colours, which colour-blind people can tell apart, without black and yellow.
_COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_LONGEST_LABEL = 40  # characters


def draw_boxes(image: Image.Image, boxes: Iterable[Box]) -> Image.Image:
    """A copy of an image with boxes drawn on it, those with the same label in one colour.

    Args:
        image: The original image, upright, for example from `vlm_run.media.load_image`.
        boxes: For example `Response.boxes`.
    """
    from PIL import ImageDraw, ImageFont

    drawn = image.convert("RGB") if image.mode != "RGB" else image.copy()
    shorter = min(drawn.size)
    line = max(1, round(shorter / 200))
    font = ImageFont.load_default(size=max(10, round(shorter / 30)))
    draw = ImageDraw.Draw(drawn)
    colours: dict[str, str] = {}
    for box in boxes:
        colour = colours.setdefault(box.label, _COLOURS[len(colours) % len(_COLOURS)])
        left, top = int(box.left), int(box.top)
        # The right and the bottom edge are those of the last pixels.
        right, bottom = max(left, round(box.right) - 1), max(top, round(box.bottom) - 1)
        draw.rectangle((left, top, right, bottom), outline=colour, width=line)
        if not box.label:
            continue
        label = printable(box.label, _LONGEST_LABEL)
        _, _, width, height = draw.textbbox((0, 0), label, font=font)
        x = max(0, min(left, drawn.width - round(width)))
        y = top - round(height) if top >= height else top
        draw.rectangle((x, y, x + width, y + height), fill=colour)
        draw.text((x, y), label, fill="white", font=font)
    return drawn
