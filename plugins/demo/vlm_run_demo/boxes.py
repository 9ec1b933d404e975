"""Questions that are answered with a box, in the form and the coordinates of Qwen2-VL's answers.

Coordinates are from 0 to 1000 for any image size, as Qwen2-VL's technical report (arXiv 2409.12191) has them
for visual grounding. Only demo-qwen learns them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from vlm_run_demo.dialogues import HELD_OUT_SEED, Dialogue, Example, example, system_message
from vlm_run_demo.drawing import Scene, Shape, edges, make_scene
from vlm_run_demo.questions import ABOUT_ONE, Turn, names

TAGS = ("<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>")
"""Around the label, then around the corners; special tokens, which vLLM leaves out of an answer's text."""
MAXIMUM = 1000
"""The coordinate of the right and of the bottom edge of every image."""

_FEWEST_PIXELS = 11264
"""Area of an image; smaller ones would be enlarged, or take fewer tokens than the model can have."""
_SIZE = (0.11, 0.24)
"""Size of a shape as a share of the square root of the image's area."""


@dataclass(frozen=True, kw_only=True)
class BoxExample(Example):
    """An example whose answer is a box.

    Attributes:
        edges: Left, top, right and bottom edge of the shape, in pixels of the image.
    """

    edges: tuple[float, float, float, float]


def make_box_scene(rng: Random) -> Scene:
    """A scene of up to four shapes that are large enough for a box to be exact; seldom any scene."""
    if rng.random() < 0.15:
        return make_scene(rng)
    return make_scene(rng, most=4, sizes=_SIZE, fewest_pixels=_FEWEST_PIXELS)


def box_answer(label: str, shape: Shape, scene: Scene) -> str:
    """The answer that tells where a shape is."""
    left, top, right, bottom = edges(shape)
    x1, x2 = (_coordinate(x / scene.width) for x in (left, right))
    y1, y2 = (_coordinate(y / scene.height) for y in (top, bottom))
    label_start, label_end, box_start, box_end = TAGS
    return f"{label_start}{label}{label_end}{box_start}({x1},{y1}),({x2},{y2}){box_end}"


def without_tags(answer: str) -> str:
    """An answer as vLLM returns it, and as it stands in later prompts."""
    for tag in TAGS:
        answer = answer.replace(tag, "")
    return answer


def where(scene: Scene, rng: Random) -> tuple[tuple[Turn, Shape], ...]:
    """Where one or two shapes are that a colour, a kind or both tell from the others; the shapes too."""
    named = [(group, shape) for shape in scene.shapes if (group := names(shape, scene.shapes, rng))]
    rng.shuffle(named)
    asked = named[: rng.choice((1, 1, 2))]
    openings = (rng.choice(("Where is the {}?", "Find the {}.", "Locate the {}.")), "And the {}?")
    return tuple(
        (
            Turn(opening.format(group.singular), box_answer(group.singular, shape, scene)),
            shape,
        )
        for opening, (group, shape) in zip(openings, asked, strict=False)
    )


def box_dialogue(seed: int, turns: int) -> Dialogue:
    """A training dialogue of at least `turns` turns about one image, about boxes and other things.

    In half of the dialogues earlier boxes stand as vLLM returns them, and only the last one is learned.
    """
    rng = Random(seed)
    system = system_message(rng)
    scene = make_box_scene(rng)
    said: list[Turn] = []
    found: list[Shape] = []
    while len(said) < turns:
        boxes = where(scene, rng) if rng.random() < 0.6 else ()
        if boxes and not any(shape in found for _, shape in boxes):
            said.extend(turn for turn, _ in boxes)
            found.extend(shape for _, shape in boxes)
        else:
            said.extend(rng.choice(list(ABOUT_ONE.values()))([scene], rng) or ())
    return Dialogue((scene,), tuple(_as_returned(said) if rng.random() < 0.5 else said), system)


def box_example(seed: int) -> BoxExample:
    """A question for a box; held-out ones have seeds from `HELD_OUT_SEED` on."""
    return _asked(seed)[0]


def scored_box_dialogue(seed: int) -> tuple[str, Dialogue]:
    """The kind of question and the dialogue of `box_example`, with its answer."""
    asked, talk = _asked(seed)
    return asked.kind, talk


def held_out_boxes(n: int = 500) -> list[BoxExample]:
    """The first `n` held-out questions for a box."""
    return [box_example(HELD_OUT_SEED + i) for i in range(n)]


def overlap(box: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two boxes, each by its left, top, right and bottom edge; 0 to 1."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    return shared / (_area(box) + _area(other) - shared)


def _asked(seed: int) -> tuple[BoxExample, Dialogue]:
    rng = Random(f"box {seed}")  # not the generator of `scored_dialogue`
    while True:
        scene = make_box_scene(rng)
        if turns := where(scene, rng):
            break
    turn, shape = turns[0]
    talk = Dialogue((scene,), (turn,))
    asked = example("box", talk)
    return BoxExample(**vars(asked), edges=edges(shape)), talk


def _as_returned(said: Sequence[Turn]) -> list[Turn]:
    boxes = [i for i, turn in enumerate(said) if TAGS[0] in turn.answer]
    return [
        replace(turn, answer=without_tags(turn.answer), is_learned=False) if i in boxes[:-1] else turn
        for i, turn in enumerate(said)
    ]


def _coordinate(share: float) -> int:
    return min(max(math.floor(share * MAXIMUM + 0.5), 0), MAXIMUM - 1)


def _area(box: Sequence[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
