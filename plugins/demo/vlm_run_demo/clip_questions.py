"""Questions about clips, each with one exact short answer that depends on the order of the frames.

Only demo-qwen learns to answer them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from random import Random

from vlm_run_demo.clips import Clip, film, frames, make_appearing, make_moving
from vlm_run_demo.dialogues import HELD_OUT_SEED, Dialogue, Example, example, system_message
from vlm_run_demo.questions import ABOUT_ONE, Group, Turn, count, names


@dataclass(frozen=True, kw_only=True)
class ClipExample(Example):
    """An example whose video shows a clip."""

    clip: Clip

    def reordered(self, order: Callable[[int], Iterable[int]]) -> ClipExample:
        """The same question about frames in another order: their numbers, given how many there are."""
        images = frames(self.clip)
        return replace(self, videos=[film([images[i] for i in order(len(images))], self.clip.fps)])


def direction(clip: Clip, rng: Random) -> Turn | None:
    """Which way one of the shapes moves."""
    shapes = [actor.shape for actor in clip.actors]
    actor = rng.choice([actor for actor in clip.actors if actor.direction])
    group = Group() if len(shapes) == 1 and rng.random() < 0.5 else names(actor.shape, shapes, rng)
    if group is None or actor.direction is None:
        return None
    question = rng.choice(("Which way does the {} move?", "Where does the {} move?"))
    return Turn(question.format(group.singular), actor.direction)


def order(clip: Clip, rng: Random) -> Turn | None:
    """Which shape is the first, the second or the last to appear."""
    appearing = [actor.shape for actor in clip.actors if actor.since]
    places = {"first": 0, "second": 1, "last": -1}
    place = rng.choice(list(places))
    question = rng.choice(("What appears {}?", "Which shape appears {}?"))
    shape = appearing[places[place]]
    return Turn(question.format(place), Group(shape.colour, shape.kind).singular)


def neighbour(clip: Clip, rng: Random) -> Turn | None:
    """Which shape appears right after or before another."""
    appearing = [actor.shape for actor in clip.actors if actor.since]
    number = rng.randrange(len(appearing) - 1)
    pair = appearing[number], appearing[number + 1]
    word, (asked, told) = rng.choice((("after", pair), ("before", pair[::-1])))
    group = names(asked, [actor.shape for actor in clip.actors], rng)
    if group is None:
        return None
    return Turn(f"What appears {word} the {group.singular}?", Group(told.colour, told.kind).singular)


MOVING = {"video: direction": direction}
APPEARING = {"video: order": order, "video: before or after": neighbour}
ABOUT_CLIPS = MOVING | APPEARING
"""Asks one question; None if the clip allows no clear answer."""

_STILL = ("count", "exists", "attribute")


def clip_dialogue(seed: int, turns: int) -> Dialogue:
    """A training dialogue of at most `turns` turns about a clip, some of them about what is in all frames."""
    rng = Random(seed)
    system = system_message(rng)
    moves = rng.random() < 0.5
    clip, kinds = (make_moving(rng), MOVING) if moves else (make_appearing(rng), APPEARING)
    said: list[Turn] = []
    for number in range(turns):
        if moves and number and rng.random() < 0.4:
            said.extend(ABOUT_ONE[rng.choice(_STILL)]([clip.whole], rng) or ())
            continue
        turn = rng.choice(list(kinds.values()))(clip, rng)
        if turn is not None and turn not in said:
            said.append(turn)
    if not said:  # the shapes that move look alike
        said.extend(count([clip.whole], rng))
    return Dialogue((), tuple(said), system, clip)


def scored_clip_dialogue(seed: int) -> tuple[str, Dialogue]:
    """A kind of question and a dialogue that asks it: what examples are made of."""
    rng = Random(f"clip {seed}")  # not the generator of `scored_dialogue`
    while True:
        kind = rng.choice(("video: direction", *ABOUT_CLIPS))
        clip = make_moving(rng) if kind in MOVING else make_appearing(rng)
        if turn := ABOUT_CLIPS[kind](clip, rng):
            return kind, Dialogue((), (turn,), clip=clip)


def clip_example(seed: int) -> ClipExample:
    """A question about a clip; held-out ones have seeds from `HELD_OUT_SEED` on."""
    kind, talk = scored_clip_dialogue(seed)
    assert talk.clip is not None
    return ClipExample(**vars(example(kind, talk)), clip=talk.clip)


def held_out_clips(n: int = 500) -> list[ClipExample]:
    """The first `n` held-out questions about clips."""
    return [clip_example(HELD_OUT_SEED + i) for i in range(n)]
