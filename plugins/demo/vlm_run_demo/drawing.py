"""Draws pictures of coloured shapes, the same ones for the same random generator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

COLOURS = {
    "red": (214, 40, 40),
    "green": (40, 160, 60),
    "blue": (40, 80, 215),
    "yellow": (235, 200, 30),
    "purple": (150, 50, 180),
}
SHAPES = ("circle", "square", "triangle")

SMALLEST_SIDE, LARGEST_SIDE = 80, 256
"""Bounds of a picture's sides in pixels; the longer is at most three times the shorter."""
MOST_THINGS = 6


@dataclass(frozen=True, slots=True)
class Thing:
    """A shape in a picture; position and radius in pixels."""

    shape: str
    colour: str
    x: float
    y: float
    radius: float

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """What a picture shows, and the picture."""

    things: tuple[Thing, ...]
    image: Image.Image

    def count(self, colour: str | None = None, shape: str | None = None) -> int:
        """How many things have the colour and the shape; None stands for any."""
        return sum(colour in (None, thing.colour) and shape in (None, thing.shape) for thing in self.things)


def draw_size(random: np.random.Generator) -> tuple[int, int]:
    """A width and height, spread over sizes and aspect ratios."""
    while True:
        width, height = (int(side) for side in random.integers(SMALLEST_SIDE, LARGEST_SIDE + 1, size=2))
        if max(width, height) <= 3 * min(width, height):
            return width, height


def draw_scene(random: np.random.Generator, size: tuple[int, int] | None = None) -> Scene:
    """A picture of one to six things on a noisy background; some overlap a little."""
    width, height = size or draw_size(random)
    things: list[Thing] = []
    # Few kinds in one picture, so that there is something to count.
    kinds = [
        (str(random.choice(SHAPES)), str(random.choice(list(COLOURS)))) for _ in range(random.integers(1, 5))
    ]
    for _ in range(random.integers(1, MOST_THINGS + 1)):
        shape, colour = kinds[random.integers(len(kinds))]
        thing = _place(random, shape, colour, things, width, height)
        if thing is not None:
            things.append(thing)
    return Scene(tuple(things), _paint(random, things, width, height))


def _place(
    random: np.random.Generator, shape: str, colour: str, others: list[Thing], width: int, height: int
) -> Thing | None:
    """A thing where it covers no other's middle; None if there is no room for it."""
    side = min(width, height)
    for _ in range(20):
        radius = side * random.uniform(0.13, 0.22)
        x = random.uniform(radius, width - radius)
        y = random.uniform(radius, height - radius)
        if all(np.hypot(x - other.x, y - other.y) > 0.9 * (radius + other.radius) for other in others):
            return Thing(shape, colour, float(x), float(y), float(radius))
    return None


def _paint(random: np.random.Generator, things: list[Thing], width: int, height: int) -> Image.Image:
    background = tuple(int(level) for level in random.integers(200, 246, size=3))
    image = Image.new("RGB", (width, height), background)
    draw = ImageDraw.Draw(image)
    for thing in things:
        shade = tuple(
            int(np.clip(level + random.integers(-18, 19), 0, 255)) for level in COLOURS[thing.colour]
        )
        box = (thing.x - thing.radius, thing.y - thing.radius, thing.x + thing.radius, thing.y + thing.radius)
        if thing.shape == "circle":
            draw.ellipse(box, fill=shade)
        elif thing.shape == "square":
            inset = 0.12 * thing.radius
            draw.rectangle((box[0] + inset, box[1] + inset, box[2] - inset, box[3] - inset), fill=shade)
        else:
            draw.polygon([(thing.x, box[1]), (box[0], box[3]), (box[2], box[3])], fill=shade)
    noise = random.normal(0.0, random.uniform(0.0, 10.0), size=(height, width, 1)).astype(np.float32)
    return Image.fromarray(np.clip(np.asarray(image, dtype=np.float32) + noise, 0, 255).astype(np.uint8))
