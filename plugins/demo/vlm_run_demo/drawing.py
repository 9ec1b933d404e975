"""Scenes of coloured shapes, drawn deterministically from a random generator.

A `Scene` says what is in the image, so that questions about it have exact answers; `paint` turns it
into pixels. Images differ in size, aspect ratio, background, noise, shape size and rotation, and
neighbouring shapes may overlap a little.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

KINDS = ("circle", "square", "triangle", "star")
COLOURS = {
    "red": (215, 35, 40),
    "green": (35, 160, 65),
    "blue": (40, 75, 220),
    "yellow": (240, 220, 45),
    "purple": (145, 45, 180),
    "orange": (245, 140, 25),
}
MAX_SHAPES = 6
CLASSES = 1 + len(KINDS) * len(COLOURS)
"""Number of values in a class map: nothing, or one of each kind in each colour."""

# Reach of each kind in units of `Shape.size`: the radius of the circle around it. Kinds that fill less
# of that circle reach further, so that equal sizes look about equally large.
_REACH = {"circle": 1.0, "square": 1.25, "triangle": 1.35, "star": 1.45}
_STAR_INNER = 0.45
_COLOUR_JITTER = 12
_SHORT_SIDE = (72, 176)
_MAX_ASPECT = 2.8


@dataclass(frozen=True)
class Shape:
    """One shape; positions and size in pixels, the angle in radians."""

    kind: str
    colour: str
    x: float
    y: float
    size: float
    angle: float
    rgb: tuple[int, int, int]

    @property
    def reach(self) -> float:
        """Radius in pixels of the circle around the shape."""
        return self.size * _REACH[self.kind]


@dataclass(frozen=True)
class Scene:
    """Everything `paint` needs; shapes are painted in order, later ones on top."""

    width: int
    height: int
    background: tuple[int, int, int]
    noise: float
    noise_at: tuple[int, int]
    shapes: tuple[Shape, ...]


def make_scene(
    rng: Random,
    most: int = MAX_SHAPES,
    sizes: tuple[float, float] | None = None,
    fewest_pixels: int = 0,
) -> Scene:
    """A random scene of one to `most` shapes.

    Few colours and kinds are used in one scene, so that several shapes often look alike and
    counting is worth asking about.

    Args:
        rng: Decides everything.
        most: Maximum number of shapes.
        sizes: Smallest and largest size of a shape, as a share of the square root of the image's area; None
            for small ones, of which one may stand out.
        fewest_pixels: Minimum area of the image, in pixels.
    """
    width, height = _image_size(rng)
    enlarged = max(1.0, math.sqrt(fewest_pixels / (width * height)))
    width, height = math.ceil(width * enlarged), math.ceil(height * enlarged)
    grey = rng.choice((rng.randint(20, 70), rng.randint(150, 235)))
    colours = rng.sample(list(COLOURS), rng.randint(1, 4))
    kinds = rng.sample(KINDS, rng.randint(1, 4))
    count, scale, short = rng.randint(1, most), math.sqrt(width * height), min(width, height)
    drawn = _sizes(rng, count) if sizes is None else [rng.uniform(*sizes) for _ in range(count)]
    shapes: list[Shape] = []
    for size in sorted((min(size * scale, 0.25 * short) for size in drawn), reverse=True):
        shape = place(rng, (rng.choice(kinds), rng.choice(colours)), size, (width, height), shapes)
        if shape is not None:
            shapes.append(shape)
    rng.shuffle(shapes)
    return Scene(
        width=width,
        height=height,
        background=(_jitter(rng, grey), _jitter(rng, grey), _jitter(rng, grey)),
        noise=rng.uniform(0.0, 1.0),
        noise_at=(rng.randrange(_NOISE_SIDE), rng.randrange(_NOISE_SIDE)),
        shapes=tuple(shapes),
    )


def paint(scene: Scene) -> Image.Image:
    """The RGB image of `scene`."""
    image = Image.new("RGB", (scene.width, scene.height), scene.background)
    draw = ImageDraw.Draw(image)
    for shape in scene.shapes:
        _fill(draw, shape, shape.rgb)
    top, left = scene.noise_at
    noise = _noise_field()[top : top + scene.height, left : left + scene.width]
    pixels = np.asarray(image, dtype=np.int16) + (noise * np.float32(scene.noise)).astype(np.int16)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def class_map(scene: Scene) -> Image.Image:
    """For each pixel of the image 0 where no shape is, else the class of the topmost shape there."""
    classes = Image.new("L", (scene.width, scene.height))
    draw = ImageDraw.Draw(classes)
    for shape in scene.shapes:
        _fill(draw, shape, class_of(shape))
    return classes


def class_of(shape: Shape) -> int:
    """A number from 1 below `CLASSES` for each kind in each colour."""
    return 1 + KINDS.index(shape.kind) * len(COLOURS) + list(COLOURS).index(shape.colour)


def edges(shape: Shape) -> tuple[float, float, float, float]:
    """Left, top, right and bottom edge of the smallest box around a shape, in pixels."""
    if shape.kind == "circle":
        x, y, r = shape.x, shape.y, shape.reach
        return x - r, y - r, x + r, y + r
    columns, rows = zip(*_corners(shape), strict=True)
    return min(columns), min(rows), max(columns), max(rows)


def _image_size(rng: Random) -> tuple[int, int]:
    """Width and height: a short side of `_SHORT_SIDE` pixels, either side up to `_MAX_ASPECT` longer."""
    short = rng.randint(*_SHORT_SIDE)
    aspect = _MAX_ASPECT ** rng.random()
    # Long images are not larger: both sides shrink so that the area stays the same.
    short = max(64, round(short / math.sqrt(aspect)))
    long = round(short * aspect)
    return (short, long) if rng.random() < 0.5 else (long, short)


def _sizes(rng: Random, count: int) -> list[float]:
    """Sizes as a share of the square root of the image's area; half of the time one clearly stands out."""
    sizes = [rng.uniform(0.08, 0.11) for _ in range(count)]
    if rng.random() < 0.6:
        sizes[0] = rng.uniform(0.15, 0.18)
    if count > 1 and rng.random() < 0.4:
        sizes[-1] = 0.055
    return sizes


def place(
    rng: Random, look: tuple[str, str], size: float, area: tuple[int, int], others: list[Shape]
) -> Shape | None:
    """A shape inside the image that hides at most a little of `others`; None if there is no room."""
    (kind, colour), (width, height) = look, area
    red, green, blue = COLOURS[colour]
    reach = size * _REACH[kind]
    for _ in range(24):
        x, y = rng.uniform(reach, width - reach), rng.uniform(reach, height - reach)
        if all(math.hypot(x - o.x, y - o.y) > 0.85 * (reach + o.reach) for o in others):
            return Shape(
                kind=kind,
                colour=colour,
                x=x,
                y=y,
                size=size,
                angle=rng.uniform(-0.3, 0.3),
                rgb=(_jitter(rng, red), _jitter(rng, green), _jitter(rng, blue)),
            )
    return None


def _jitter(rng: Random, level: int) -> int:
    return min(255, max(0, level + rng.randint(-_COLOUR_JITTER, _COLOUR_JITTER)))


def _fill(draw: ImageDraw.ImageDraw, shape: Shape, value: int | tuple[int, int, int]) -> None:
    if shape.kind == "circle":
        x, y, r = shape.x, shape.y, shape.reach
        draw.ellipse((x - r, y - r, x + r, y + r), fill=value)
    else:
        draw.polygon(_corners(shape), fill=value)


def _corners(shape: Shape) -> list[tuple[float, float]]:
    """Corners of a square, triangle or star, in pixels."""
    if shape.kind == "square":
        spokes = [(math.pi / 4 + i * math.pi / 2, 1.0) for i in range(4)]
    elif shape.kind == "triangle":
        spokes = [(-math.pi / 2 + i * math.tau / 3, 1.0) for i in range(3)]
    else:
        spokes = [(-math.pi / 2 + i * math.pi / 5, 1.0 if i % 2 == 0 else _STAR_INNER) for i in range(10)]
    return [
        (
            shape.x + shape.reach * length * math.cos(shape.angle + angle),
            shape.y + shape.reach * length * math.sin(shape.angle + angle),
        )
        for angle, length in spokes
    ]


_NOISE_SIDE = 256
_NOISE_LEVELS = 14.0


@cache
def _noise_field() -> NDArray[np.float32]:
    """Fixed noise from which each image takes a window; generating it per image would be the slowest step."""
    side = _NOISE_SIDE + 640
    field = np.random.default_rng(0).normal(scale=_NOISE_LEVELS, size=(side, side, 3))
    return field.astype(np.float32)
