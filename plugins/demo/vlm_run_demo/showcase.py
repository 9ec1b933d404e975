"""An image and three questions about it, for `vlm-run demo`."""

from __future__ import annotations

from itertools import count
from random import Random

from PIL import Image

from vlm_run_demo.drawing import make_scene, paint
from vlm_run_demo.questions import ABOUT_ONE, Turn

_KINDS = ("count", "attribute", "largest or smallest")


def draw(seed: int) -> tuple[Image.Image, list[Turn]]:
    """An image with several shapes, and a question of each of three kinds with its answer."""
    for attempt in count():
        rng = Random(f"{seed} {attempt}")
        scene = make_scene(rng)
        turns = [turn for kind in _KINDS for turn in ABOUT_ONE[kind]([scene], rng) or ()]
        if min(scene.width, scene.height) < 120:
            continue
        if len(scene.shapes) >= 4 and len(turns) == len(_KINDS) and turns[0].answer not in ("0", "1"):
            return paint(scene), turns
    raise AssertionError("unreachable")
