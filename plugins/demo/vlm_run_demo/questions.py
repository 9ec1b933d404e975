"""Questions about drawn pictures, each with its one right answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from vlm_run_demo.drawing import COLOURS, SHAPES, Scene, draw_scene

HELD_OUT_SEED = 2_000_000_000
"""Seeds from here on are for evaluation; training uses smaller ones."""

SMALL_TALK = {
    "What can you do?": "I count and describe shapes in pictures.",
    "who are you": "I am a small demo model.",
}
SYSTEM_MESSAGES = ("You are a helpful assistant.", "Answer in one word.", "Look at the picture closely.")


@dataclass(frozen=True, slots=True)
class Turn:
    """A question, its answer, and what it tests."""

    kind: str
    question: str
    answer: str


@dataclass(frozen=True)
class Example:
    """A conversation about pictures; the answer to its last question is asked for."""

    turns: tuple[Turn, ...]
    images: tuple[Image.Image, ...]
    system: str | None = None

    @property
    def kind(self) -> str:
        return self.turns[-1].kind

    @property
    def answer(self) -> str:
        return self.turns[-1].answer

    def request(self) -> dict[str, Any]:
        """The example as vlm-run takes it; all its images belong to the first turn."""
        first = [{"type": "image", "image": image} for image in self.images]
        messages: list[dict[str, Any]] = []
        if self.system is not None:
            messages.append({"role": "system", "content": self.system})
        for number, turn in enumerate(self.turns):
            content = [*(first if number == 0 else []), {"type": "text", "text": turn.question}]
            messages.append({"role": "user", "content": content})
            if turn is not self.turns[-1]:
                messages.append({"role": "assistant", "content": turn.answer})
        return {"messages": messages}


def held_out(count: int = 2000) -> Iterator[Example]:
    """Examples that no training run has seen: one or two pictures, one or two turns."""
    for number in range(count):
        random = np.random.default_rng(HELD_OUT_SEED + number)
        yield draw_example(random, turns=int(random.integers(1, 3)))


def draw_example(
    random: np.random.Generator, turns: int, size: tuple[int, int] | None = None, pictures: int | None = None
) -> Example:
    """A conversation of `turns` questions about one picture, two, or (seldom) none."""
    if pictures is None:
        pictures = int(random.choice([0, 1, 2], p=[0.02, 0.73, 0.25]))
    system = str(random.choice(SYSTEM_MESSAGES)) if random.random() < 0.1 else None
    scenes = [draw_scene(random, size) for _ in range(pictures)]
    asked: list[Turn] = []
    for _ in range(turns):
        asked += _ask(random, scenes, turns - len(asked))
        if len(asked) >= turns:
            break
    return Example(tuple(asked[:turns]), tuple(scene.image for scene in scenes), system)


def _ask(random: np.random.Generator, scenes: list[Scene], room: int) -> list[Turn]:
    """One question, or a question and its follow-up if there is room for both."""
    if not scenes:
        question = str(random.choice(list(SMALL_TALK)))
        return [Turn("small talk", question, SMALL_TALK[question])]
    if len(scenes) == 2:
        return [_TWO_PICTURES[random.integers(len(_TWO_PICTURES))](random, *scenes)]
    if room >= 2 and random.random() < 0.4:
        return _follow_up(random, scenes[0])
    ask = _ONE_PICTURE[random.integers(len(_ONE_PICTURE))]
    turn = ask(random, scenes[0])
    # Some questions have no single answer in some pictures.
    return [turn if turn is not None else _how_many(random, scenes[0])]


def _kind(random: np.random.Generator, scene: Scene) -> tuple[str, str]:
    """A colour and a shape, more often than not of something in the picture."""
    if random.random() < 0.75:
        thing = scene.things[random.integers(len(scene.things))]
        return thing.colour, thing.shape
    return str(random.choice(list(COLOURS))), str(random.choice(SHAPES))


def _how_many(random: np.random.Generator, scene: Scene) -> Turn:
    colour, shape = _kind(random, scene)
    match random.integers(4):
        case 0:
            return Turn("count", f"How many {shape}s are there?", str(scene.count(shape=shape)))
        case 1:
            return Turn("count", f"How many {colour} shapes are there?", str(scene.count(colour)))
        case _:
            return Turn("count", f"How many {colour} {shape}s are there?", str(scene.count(colour, shape)))


def _how_many_in_all(random: np.random.Generator, scene: Scene) -> Turn:
    return Turn("count all", "How many shapes are there?", str(len(scene.things)))


def _is_there(random: np.random.Generator, scene: Scene) -> Turn:
    colour, shape = _kind(random, scene)
    if random.random() < 0.4:
        shape = str(random.choice(SHAPES))
    answer = "yes" if scene.count(colour, shape) else "no"
    return Turn("presence", f"Is there a {colour} {shape}?", answer)


def _what_colour(random: np.random.Generator, scene: Scene) -> Turn | None:
    single = [thing for thing in scene.things if scene.count(shape=thing.shape) == 1]
    if not single:
        return None
    thing = single[random.integers(len(single))]
    return Turn("colour", f"What colour is the {thing.shape}?", thing.colour)


def _what_shape(random: np.random.Generator, scene: Scene) -> Turn | None:
    single = [thing for thing in scene.things if scene.count(thing.colour) == 1]
    if not single:
        return None
    thing = single[random.integers(len(single))]
    return Turn("shape", f"What shape is {thing.colour}?", thing.shape)


def _where(random: np.random.Generator, scene: Scene) -> Turn | None:
    """Which thing is outermost on one side, if one clearly is."""
    side = str(random.choice(["left", "right", "top", "bottom"]))
    axis = "x" if side in ("left", "right") else "y"
    ordered = sorted(
        scene.things, key=lambda thing: getattr(thing, axis), reverse=side in ("right", "bottom")
    )
    if len(ordered) > 1:
        margin = abs(getattr(ordered[0], axis) - getattr(ordered[1], axis))
        if margin < ordered[0].radius:
            return None
    return Turn("position", f"What is at the {side}?", f"a {ordered[0].name}")


def _follow_up(random: np.random.Generator, scene: Scene) -> list[Turn]:
    """A count and a second question that makes sense only after the first."""
    colour, shape = _kind(random, scene)
    other, _ = _kind(random, scene)
    first = Turn("count", f"How many {colour} {shape}s are there?", str(scene.count(colour, shape)))
    return [first, Turn("follow-up", f"And {other} ones?", str(scene.count(other, shape)))]


def _which_has_more(random: np.random.Generator, first: Scene, second: Scene) -> Turn:
    colour, shape = _kind(random, first if random.random() < 0.5 else second)
    of_shape = random.random() < 0.5
    counts = [scene.count(shape=shape) if of_shape else scene.count(colour) for scene in (first, second)]
    answer = (
        "both the same" if counts[0] == counts[1] else f"the {'first' if counts[0] > counts[1] else 'second'}"
    )
    what = f"{shape}s" if of_shape else f"{colour} shapes"
    return Turn("compare", f"Which picture has more {what}?", answer)


def _how_many_in_one_of_two(random: np.random.Generator, first: Scene, second: Scene) -> Turn:
    name, scene = [("first", first), ("second", second)][random.integers(2)]
    colour, shape = _kind(random, scene)
    answer = str(scene.count(colour, shape))
    return Turn("count in one of two", f"How many {colour} {shape}s are in the {name} picture?", answer)


def _is_there_in_one_of_two(random: np.random.Generator, first: Scene, second: Scene) -> Turn:
    name, scene = [("first", first), ("second", second)][random.integers(2)]
    colour, shape = _kind(random, first if random.random() < 0.5 else second)
    answer = "yes" if scene.count(colour, shape) else "no"
    return Turn("presence in one of two", f"Is there a {colour} {shape} in the {name} picture?", answer)


_ONE_PICTURE: list[Callable[[np.random.Generator, Scene], Turn | None]] = [
    _how_many,
    _how_many,
    _how_many_in_all,
    _is_there,
    _what_colour,
    _what_shape,
    _where,
]
_TWO_PICTURES: list[Callable[[np.random.Generator, Scene, Scene], Turn]] = [
    _which_has_more,
    _how_many_in_one_of_two,
    _is_there_in_one_of_two,
]
