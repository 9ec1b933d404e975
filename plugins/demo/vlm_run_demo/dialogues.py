"""Dialogues about images, for training and for scoring.

A `Dialogue` is images and any number of turns about them. An `Example` is OpenAI-style messages
that end before the answer. Both come from one seed each, and the seeds of `held_out` are never
drawn for training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Any

from PIL import Image

from vlm_run_demo.clips import Clip, film, frames
from vlm_run_demo.drawing import Scene, make_scene, paint
from vlm_run_demo.questions import (
    ABOUT_ONE,
    ABOUT_ONE_FOLLOW_UPS,
    ABOUT_TWO,
    Ask,
    Turn,
    count,
    which_more_follow_up,
)

HELD_OUT_SEED = 0
"""First seed of the held-out examples; training and validation draw from far above it."""

NO_IMAGE = "I see no picture."
SMALL_TALK = {
    "What can you do?": "I answer questions about pictures of coloured shapes.",
    "Who are you?": "I am a small demo model.",
    "Hello!": "Hello! Show me a picture of coloured shapes.",
}

_SYSTEM_WORDS = (
    *("you", "are", "a", "helpful", "assistant", "answer", "in", "one", "word", "short", "briefly", "the"),
    *("question", "about", "picture", "image", "be", "concise", "precise", "please", "and", "polite"),
    *("carefully", "user", "language", "vision", "model", "look", "at", "shapes", "colours"),
)


@dataclass(frozen=True)
class Dialogue:
    """Turns about images or a clip, which the first of them shows."""

    scenes: tuple[Scene, ...]
    turns: tuple[Turn, ...]
    system: str | None = None
    clip: Clip | None = None

    @cached_property
    def images(self) -> list[Image.Image]:
        """The scenes, painted."""
        return [paint(scene) for scene in self.scenes]

    @cached_property
    def videos(self) -> list[bytes]:
        """The file of the clip, if there is one."""
        return [] if self.clip is None else [film(frames(self.clip), self.clip.fps)]


@dataclass(frozen=True)
class Example:
    """Messages whose last one, from the user, waits for `answer`.

    Content is a list of parts of type `image`, `video` and `text` (`{"type": "text", "text": ...}`); the
    first two stand for `images` and `videos`, in order.
    """

    kind: str
    messages: list[dict[str, Any]]
    images: list[Image.Image]
    answer: str
    videos: Sequence[bytes] = ()


def dialogue(seed: int, images: int, turns: int, favour: Mapping[str, float] | None = None) -> Dialogue:
    """A training dialogue of at least `turns` turns about `images` (0 to 2) images.

    `favour` makes kinds of questions, by their names in `ABOUT_ONE` and `ABOUT_TWO`, so many times as
    likely as the others.
    """
    rng = Random(seed)
    system = system_message(rng)
    if not images:
        return Dialogue((), (_without_image(rng),), system)
    scenes = [make_scene(rng) for _ in range(images)]
    kinds, follow_ups = (
        (ABOUT_ONE, ABOUT_ONE_FOLLOW_UPS) if images == 1 else (ABOUT_TWO, (which_more_follow_up,))
    )
    single: Sequence[Ask] = (count, *kinds.values()) if images == 1 else tuple(kinds.values())
    said: list[Turn] = []
    while len(said) < turns:
        if rng.random() < 0.25:
            ask = rng.choice(follow_ups)
        elif favour:
            (ask,) = rng.choices(list(kinds.values()), [favour.get(kind, 1.0) for kind in kinds])
        else:
            ask = rng.choice(single)
        said.extend(ask(scenes, rng) or ())
    return Dialogue(tuple(scenes), tuple(said), system)


def scored_dialogue(seed: int) -> tuple[str, Dialogue]:
    """A kind of question and a dialogue whose last turn asks it: what examples are made of."""
    rng = Random(seed)
    kind = rng.choice((*ABOUT_ONE, *ABOUT_TWO, "second turn", "follow-up", "follow-up", "no image"))
    system = system_message(rng)
    if kind == "no image":
        return kind, Dialogue((), (_without_image(rng),), system)
    while True:
        two = kind in ABOUT_TWO or (kind == "follow-up" and rng.random() < 0.25)
        scenes = [make_scene(rng) for _ in range(2 if two else 1)]
        turns = _turns(kind, scenes, rng)
        if turns is not None:
            return kind, Dialogue(tuple(scenes), turns, system)


def example(kind: str, talk: Dialogue) -> Example:
    """The last turn of `talk` as a question to answer, the earlier ones as history."""
    messages: list[dict[str, Any]] = []
    if talk.system is not None:
        messages.append({"role": "system", "content": [_text(talk.system)]})
    media: list[dict[str, Any]] = [{"type": "image"} for _ in talk.scenes]
    media += [{"type": "video"} for _ in talk.videos]
    for turn in talk.turns:
        messages.append({"role": "user", "content": [*media, _text(turn.question)]})
        messages.append({"role": "assistant", "content": [_text(turn.answer)]})
        media = []
    return Example(kind, messages[:-1], talk.images, talk.turns[-1].answer, talk.videos)


def held_out(n: int = 2000) -> list[Example]:
    """The first `n` held-out examples."""
    return [example(*scored_dialogue(HELD_OUT_SEED + i)) for i in range(n)]


def _turns(kind: str, scenes: Sequence[Scene], rng: Random) -> tuple[Turn, ...] | None:
    """The turns of an example of `kind`, or None where the scenes do not allow one."""
    if kind == "second turn":
        first, second = (rng.choice(list(ABOUT_ONE.values()))(scenes, rng) for _ in range(2))
        return (*first, *second) if first and second and first != second else None
    if kind == "follow-up":
        follow_ups = ABOUT_ONE_FOLLOW_UPS if len(scenes) == 1 else (which_more_follow_up,)
        return rng.choice(follow_ups)(scenes, rng)
    return (ABOUT_ONE | ABOUT_TWO)[kind](scenes, rng)


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def system_message(rng: Random) -> str | None:
    """None most of the time; else words in any order, so that no particular instruction is expected."""
    if rng.random() < 0.85:
        return None
    words = rng.choices(_SYSTEM_WORDS, k=rng.randint(3, 14))
    return " ".join(words).capitalize() + "."


def _without_image(rng: Random) -> Turn:
    """Small talk, or a question about an image that was not sent."""
    if rng.random() < 0.6:
        question = rng.choice(list(SMALL_TALK))
        return Turn(question, SMALL_TALK[question])
    turns = None
    while turns is None:
        turns = rng.choice(list(ABOUT_ONE.values()))([make_scene(rng)], rng)
    return Turn(turns[0].question, NO_IMAGE)
