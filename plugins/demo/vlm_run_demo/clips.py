"""Clips of coloured shapes that move or appear, drawn deterministically from a random generator.

A `Clip` says what is where at any time, so that questions about it have exact answers; `film` turns it into a
video file.
"""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from vlm_run_demo.drawing import COLOURS, KINDS, Scene, Shape, make_scene, paint, place

DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
"""Sign of the way along the columns and along the rows, by its name."""

_RATES = (2, 3, 4, 6)  # frames per second
_SIDE = (72, 128)  # pixels; a frame is shrunk or enlarged to 64 to 80 of them
_SIZE = (0.11, 0.17)  # of a shape, as a share of the square root of the area
_MARGIN = 0.25  # a way begins and ends within this share of the room at either side
_DRIFT = 0.08  # sideways, as a share of the frame
_GAP = (1.3, 1.7)  # seconds between appearances: more than the model's two frames in one
_MOMENTS = 9  # at which shapes are kept apart


@dataclass(frozen=True)
class Actor:
    """A shape of a clip.

    Attributes:
        shape: The shape, where it is at first.
        way: By how many pixels it moves to the right and down until the end.
        direction: Where it moves, one of `DIRECTIONS`; None if it stays.
        since: When it appears, in seconds; 0 if it is there from the beginning.
    """

    shape: Shape
    way: tuple[float, float] = (0.0, 0.0)
    direction: str | None = None
    since: float = 0.0


@dataclass(frozen=True)
class Clip:
    """Everything `film` needs.

    Attributes:
        stage: The scene without shapes.
        actors: The shapes, painted in order.
        fps: Frames per second.
        seconds: Its length.
    """

    stage: Scene
    actors: tuple[Actor, ...]
    fps: int
    seconds: int

    def at(self, time: float) -> Scene:
        """What is to be seen after `time` seconds."""
        return replace(
            self.stage,
            shapes=tuple(_moved(actor, time / self.seconds) for actor in self.actors if actor.since <= time),
        )

    @property
    def whole(self) -> Scene:
        """What is to be seen at the end: all shapes."""
        return self.at(self.seconds)


def make_moving(rng: Random) -> Clip:
    """A clip of one to three shapes, at least one of which moves to the other side."""
    stage, colours, kinds = _make_stage(rng)
    actors: list[Actor] = []
    while not actors:
        for _ in range(rng.choice((1, 2, 2, 3))):
            direction = rng.choice(list(DIRECTIONS)) if not actors or rng.random() < 0.7 else None
            actor = _make_actor(rng, (rng.choice(kinds), rng.choice(colours)), stage, direction, actors)
            if actor is not None:
                actors.append(actor)
    return Clip(stage, tuple(actors), rng.choice(_RATES), rng.randint(2, 4))


def make_appearing(rng: Random) -> Clip:
    """A clip in which two to four shapes appear one after the other, and stay."""
    stage, colours, kinds = _make_stage(rng)
    looks = list(itertools.product(kinds, colours))
    there_before, appearing = int(rng.random() < 0.25), rng.choice((2, 3, 3, 4))
    shapes: list[Shape] = []
    while not shapes:
        shapes = _different_shapes(rng, rng.sample(looks, min(there_before + appearing, len(looks))), stage)
    appearing = len(shapes) - there_before
    gap, first = rng.uniform(*_GAP), rng.uniform(0.6, 1.1)
    times = [0.0] * there_before + [first + number * gap for number in range(appearing)]
    actors = tuple(Actor(shape, since=since) for shape, since in zip(shapes, times, strict=True))
    return Clip(stage, actors, rng.choice(_RATES), math.ceil(times[-1] + 0.9))


def frames(clip: Clip) -> list[Image.Image]:
    """All frames, painted."""
    return [paint(clip.at(number / clip.fps)) for number in range(clip.fps * clip.seconds)]


def film(images: Sequence[Image.Image], fps: int) -> bytes:
    """A video file (MP4 with MPEG-4) of equally large images; needs OpenCV, which every vLLM brings."""
    import cv2

    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "clip.mp4"
        writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"mp4v"), fps, images[0].size)
        for image in images:
            writer.write(np.asarray(image)[:, :, ::-1])  # OpenCV's order is blue, green, red
        writer.release()
        return file.read_bytes()


def _make_stage(rng: Random) -> tuple[Scene, list[str], list[str]]:
    """A scene without shapes, and the colours and kinds to use in it."""
    plain = replace(make_scene(rng, most=1), shapes=())
    # MPEG-4 needs even sides.
    width, height = (2 * round(rng.randint(*_SIDE) / 2) for _ in range(2))
    # Noise is the same in all frames, as dirt on a lens is: a codec would spend most bytes on it otherwise.
    stage = replace(plain, width=width, height=height)
    return stage, rng.sample(list(COLOURS), rng.randint(2, 4)), rng.sample(KINDS, rng.randint(2, 4))


def _different_shapes(rng: Random, looks: Sequence[tuple[str, str]], stage: Scene) -> list[Shape]:
    """A shape of each look, which hide each other at most a little; none if there is no room for all."""
    shapes: list[Shape] = []
    for look in looks:
        shape = place(rng, look, _size(rng, stage), (stage.width, stage.height), shapes)
        if shape is None:
            return []
        shapes.append(shape)
    return shapes


def _make_actor(
    rng: Random, look: tuple[str, str], stage: Scene, direction: str | None, others: Sequence[Actor]
) -> Actor | None:
    """An actor that covers none of the others by much at any time; None if there is no room."""
    sides = (stage.width, stage.height)
    for _ in range(24):
        shape = place(rng, look, _size(rng, stage), sides, [])
        if shape is None:
            return None
        actor = Actor(shape) if direction is None else _on_its_way(rng, shape, direction, sides)
        if all(_stay_apart(actor, other) for other in others):
            return actor
    return None


def _on_its_way(rng: Random, shape: Shape, direction: str, sides: tuple[int, int]) -> Actor:
    """The shape at the side from which it moves, with its way to the other."""
    signs = DIRECTIONS[direction]
    places, ways = [], []
    for sign, side, at in zip(signs, sides, (shape.x, shape.y), strict=True):
        room = side - 2 * shape.reach
        if sign:
            start, end = (shape.reach + room * share for share in (_share(rng), 1 - _share(rng)))
            start, end = (start, end) if sign > 0 else (end, start)
        else:
            start, end = at, at + rng.uniform(-_DRIFT, _DRIFT) * side
            end = min(max(end, shape.reach), side - shape.reach)
        places.append(start)
        ways.append(end - start)
    return Actor(replace(shape, x=places[0], y=places[1]), (ways[0], ways[1]), direction)


def _share(rng: Random) -> float:
    return rng.uniform(0.0, _MARGIN)


def _stay_apart(actor: Actor, other: Actor) -> bool:
    moments = [number / (_MOMENTS - 1) for number in range(_MOMENTS)]
    return all(_are_apart(_moved(actor, moment), _moved(other, moment)) for moment in moments)


def _are_apart(shape: Shape, other: Shape) -> bool:
    return math.hypot(shape.x - other.x, shape.y - other.y) > 0.85 * (shape.reach + other.reach)


def _moved(actor: Actor, share: float) -> Shape:
    """The shape after a share of its way."""
    across, down = actor.way
    return replace(actor.shape, x=actor.shape.x + share * across, y=actor.shape.y + share * down)


def _size(rng: Random, stage: Scene) -> float:
    return rng.uniform(*_SIZE) * math.sqrt(stage.width * stage.height)
