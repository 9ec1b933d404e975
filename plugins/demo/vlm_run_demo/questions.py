"""Questions about scenes, each with one exact short answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from vlm_run_demo.drawing import COLOURS, KINDS, Scene, Shape

_NEITHER, _FIRST, _SECOND, _BOTH = "neither", "the first", "the second", "both"


@dataclass(frozen=True)
class Turn:
    """A question and its only right answer.

    Attributes:
        question: The user's text.
        answer: The model's.
        is_learned: Whether training learns to give this answer; otherwise it only stands in the prompt.
    """

    question: str
    answer: str
    is_learned: bool = True


@dataclass(frozen=True)
class Group:
    """The shapes of a scene that share a colour, a kind or both; all shapes if neither is set."""

    colour: str | None = None
    kind: str | None = None

    @property
    def singular(self) -> str:
        return f"{self.colour} {self.kind or 'shape'}" if self.colour else self.kind or "shape"

    @property
    def plural(self) -> str:
        return self.singular + "s"

    @property
    def with_article(self) -> str:
        return _with_article(self.singular)

    def count(self, scene: Scene) -> int:
        """How many shapes of `scene` belong to the group."""
        return sum(map(self.includes, scene.shapes))

    def includes(self, shape: Shape) -> bool:
        """Whether a shape belongs to the group."""
        return self.colour in (None, shape.colour) and self.kind in (None, shape.kind)


def names(shape: Shape, among: Sequence[Shape], rng: Random) -> Group | None:
    """A group to which only this one of several shapes belongs; None if another looks the same."""
    groups = [Group(shape.colour, shape.kind), Group(kind=shape.kind), Group(colour=shape.colour)]
    fitting = [group for group in groups if sum(map(group.includes, among)) == 1]
    return rng.choice(fitting) if fitting else None


Ask = Callable[[Sequence[Scene], Random], tuple[Turn, ...] | None]
"""Asks one question, or one and its follow-up; None if the scenes allow no clear answer."""


def count(scenes: Sequence[Scene], rng: Random) -> tuple[Turn, ...]:
    """How many shapes of a group there are."""
    (scene,) = scenes
    group = _some_group(scene, rng)
    return (_count_turn(group, scene, rng),)


def exists(scenes: Sequence[Scene], rng: Random) -> tuple[Turn, ...]:
    """Whether there is a shape of a group."""
    (scene,) = scenes
    group = _narrow_group(scene, rng)
    return (_exists_turn(group, scene, rng),)


def attribute(scenes: Sequence[Scene], rng: Random) -> tuple[Turn, ...] | None:
    """The colour of the only star, or the shape of the only blue one."""
    turns = _attribute_turns(scenes[0], rng)
    return turns[:1] or None


def extreme(scenes: Sequence[Scene], rng: Random) -> tuple[Turn, ...] | None:
    """The colour or shape of the largest or smallest one, where its size clearly stands out."""
    by_size = sorted(scenes[0].shapes, key=lambda shape: shape.size)
    if len(by_size) < 2:
        return None
    word = rng.choice(("largest", "smallest"))
    this, next_one = (by_size[-1], by_size[-2]) if word == "largest" else (by_size[0], by_size[1])
    if max(this.size, next_one.size) < 1.3 * min(this.size, next_one.size):
        return None
    if rng.random() < 0.5:
        return (Turn(f"What {_colour(rng)} is the {word} shape?", this.colour),)
    question = rng.choice((f"What shape is the {word}?", f"What shape is the {word} one?"))
    return (Turn(question, this.kind),)


def position(scenes: Sequence[Scene], rng: Random) -> tuple[Turn, ...] | None:
    """The colour or shape of the only one in a corner, where it clearly lies there."""
    (scene,) = scenes
    row, column = rng.choice(("top", "bottom")), rng.choice(("left", "right"))

    def depth(shape: Shape) -> float:
        """How far into the quarter the centre lies, as a share of the image; negative outside."""
        down, across = shape.y / scene.height - 0.5, shape.x / scene.width - 0.5
        return min(-down if row == "top" else down, -across if column == "left" else across)

    depths = sorted(((depth(shape), i) for i, shape in enumerate(scene.shapes)), reverse=True)
    if depths[0][0] < 0.06 or (len(depths) > 1 and depths[1][0] > -0.06):
        return None
    shape = scene.shapes[depths[0][1]]
    where = f"in the {row} {column}"
    if rng.random() < 0.5:
        return (Turn(f"What {_colour(rng)} is the shape {where}?", shape.colour),)
    return (Turn(f"What shape is {where}?", shape.kind),)


def count_follow_up(scenes: Sequence[Scene], rng: Random) -> tuple[Turn, ...] | None:
    """Red circles, "And blue ones?"; circles, "And squares?"."""
    (scene,) = scenes
    group = _some_group(scene, rng)
    other = _another(group, scene, rng)
    if other is None:
        return None
    return (_count_turn(group, scene, rng), Turn(_and_many(group, other), str(other.count(scene))))


def exists_follow_up(scenes: Sequence[Scene], rng: Random) -> tuple[Turn, ...] | None:
    """A red circle, "And a blue one?"."""
    (scene,) = scenes
    group = _narrow_group(scene, rng)
    other = _another(group, scene, rng)
    if other is None:
        return None
    if group.colour:
        follow_up = f"And {_with_article(f'{other.colour} one')}?"
    else:
        follow_up = f"And {other.with_article}?"
    return (_exists_turn(group, scene, rng), Turn(follow_up, _yes(other.count(scene) > 0)))


def attribute_follow_up(scenes: Sequence[Scene], rng: Random) -> tuple[Turn, ...] | None:
    """The colour of the star, "And the circle?"."""
    turns = _attribute_turns(scenes[0], rng)
    return turns if len(turns) == 2 else None


def which_more(scenes: Sequence[Scene], rng: Random) -> tuple[Turn, ...] | None:
    """Which of two images has more shapes of a group."""
    group = _some_group(rng.choice(scenes), rng)
    answer = _more(group, scenes)
    if answer == _NEITHER and rng.random() < 0.5:
        return None
    return (Turn(f"Which picture has more {group.plural}?", answer),)


def which_more_follow_up(scenes: Sequence[Scene], rng: Random) -> tuple[Turn, ...] | None:
    """More circles, "And squares?"."""
    group = _some_group(rng.choice(scenes), rng)
    other = _another(group, rng.choice(scenes), rng)
    if other is None:
        return None
    question = f"Which picture has more {group.plural}?"
    return (Turn(question, _more(group, scenes)), Turn(_and_many(group, other), _more(other, scenes)))


def which_shows(scenes: Sequence[Scene], rng: Random) -> tuple[Turn, ...]:
    """Which of two images shows a shape of a group."""
    group = _narrow_group(rng.choice(scenes), rng)
    first, second = (group.count(scene) > 0 for scene in scenes)
    answers = {
        (True, False): _FIRST,
        (False, True): _SECOND,
        (True, True): _BOTH,
        (False, False): _NEITHER,
    }
    verb = rng.choice(("shows", "has"))
    return (Turn(f"Which picture {verb} {group.with_article}?", answers[first, second]),)


def count_in_one(scenes: Sequence[Scene], rng: Random) -> tuple[Turn, ...]:
    """How many shapes of a group one of two images shows."""
    index = rng.randrange(2)
    group = _some_group(scenes[index] if rng.random() < 0.7 else scenes[1 - index], rng)
    place = ("first", "second")[index]
    question = f"How many {group.plural} are there in the {place} picture?"
    return (Turn(question, str(group.count(scenes[index]))),)


ABOUT_ONE: dict[str, Ask] = {
    "count": count,
    "exists": exists,
    "attribute": attribute,
    "largest or smallest": extreme,
    "position": position,
}
ABOUT_ONE_FOLLOW_UPS: tuple[Ask, ...] = (
    count_follow_up,
    count_follow_up,
    exists_follow_up,
    attribute_follow_up,
)
ABOUT_TWO: dict[str, Ask] = {
    "two images: more": which_more,
    "two images: which": which_shows,
    "two images: count": count_in_one,
}


def _count_turn(group: Group, scene: Scene, rng: Random) -> Turn:
    question = rng.choice(
        (
            f"How many {group.plural} are there?",
            f"How many {group.plural} do you see?",
            f"How many {group.plural} are in the picture?",
            f"Count the {group.plural}.",
        )
    )
    return Turn(question, str(group.count(scene)))


def _exists_turn(group: Group, scene: Scene, rng: Random) -> Turn:
    question = rng.choice(
        (
            f"Is there {group.with_article}?",
            f"Is there {group.with_article} in the picture?",
            f"Do you see {group.with_article}?",
        )
    )
    return Turn(question, _yes(group.count(scene) > 0))


def _attribute_turns(scene: Scene, rng: Random) -> tuple[Turn, ...]:
    """Up to two turns, the second a follow-up, about shapes that are the only one of kind or colour."""
    if rng.random() < 0.5:
        only = [shape for shape in scene.shapes if Group(kind=shape.kind).count(scene) == 1]
        rng.shuffle(only)
        openings = (f"What {_colour(rng)} is the {{}}?", "And the {}?")
        return tuple(
            Turn(opening.format(shape.kind), shape.colour)
            for opening, shape in zip(openings, only, strict=False)
        )
    only = [shape for shape in scene.shapes if Group(colour=shape.colour).count(scene) == 1]
    rng.shuffle(only)
    return tuple(
        Turn(opening.format(shape.colour), shape.kind)
        for opening, shape in zip(("What shape is the {} one?", "And the {} one?"), only, strict=False)
    )


def _some_group(scene: Scene, rng: Random) -> Group:
    """A group to count: often one that the scene shows, now and then all shapes."""
    if rng.random() < 0.12:
        return Group()
    return _narrow_group(scene, rng)


def _narrow_group(scene: Scene, rng: Random) -> Group:
    """A colour, a kind or both: of one shape of the scene, or with something changed or made up."""
    shape = rng.choice(scene.shapes)
    colour = shape.colour if rng.random() < 0.7 else _other_colour(shape.colour, scene, rng)
    kind = shape.kind if rng.random() < 0.7 else _other_kind(shape.kind, scene, rng)
    form = rng.choice(("both", "both", "colour", "kind"))
    return Group(colour if form != "kind" else None, kind if form != "colour" else None)


def _another(group: Group, scene: Scene, rng: Random) -> Group | None:
    """The group that a follow-up asks about: another colour, or another kind where none was named."""
    if group.colour is not None:
        return Group(_other_colour(group.colour, scene, rng), group.kind)
    if group.kind is not None:
        return Group(None, _other_kind(group.kind, scene, rng))
    return None


def _and_many(group: Group, other: Group) -> str:
    return f"And {other.colour} ones?" if group.colour else f"And {other.plural}?"


def _other_colour(colour: str, scene: Scene, rng: Random) -> str:
    """Another colour, more often than not one in the scene if it has one."""
    present = sorted({shape.colour for shape in scene.shapes} - {colour})
    if present and rng.random() < 0.7:
        return rng.choice(present)
    return rng.choice([name for name in COLOURS if name != colour])


def _other_kind(kind: str, scene: Scene, rng: Random) -> str:
    """Another kind, more often than not one in the scene if it has one."""
    present = sorted({shape.kind for shape in scene.shapes} - {kind})
    if present and rng.random() < 0.7:
        return rng.choice(present)
    return rng.choice([name for name in KINDS if name != kind])


def _more(group: Group, scenes: Sequence[Scene]) -> str:
    first, second = (group.count(scene) for scene in scenes)
    if first == second:
        return _NEITHER
    return _FIRST if first > second else _SECOND


def _colour(rng: Random) -> str:
    """Both spellings."""
    return rng.choice(("colour", "colour", "color"))


def _with_article(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"
