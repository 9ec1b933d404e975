"""Questions have one right answer, and the held-out ones are never trained on."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from vlm_run_demo.dialogues import dialogue, held_out
from vlm_run_demo.drawing import make_scene, paint
from vlm_run_demo.questions import Group, count


def test_the_same_seed_gives_the_same_examples() -> None:
    first, second = held_out(5), held_out(5)
    assert [example.messages for example in first] == [example.messages for example in second]
    assert [[image.tobytes() for image in example.images] for example in first] == [
        [image.tobytes() for image in example.images] for example in second
    ]


@given(st.integers(min_value=0))
def test_a_count_is_the_number_of_shapes_of_its_group(seed: int) -> None:
    scene = make_scene(Random(seed))
    assert Group().count(scene) == len(scene.shapes)
    (turn,) = count([scene], Random(seed))
    assert 0 <= int(turn.answer) <= len(scene.shapes)


@given(st.integers(min_value=0))
def test_an_image_has_the_size_of_its_scene(seed: int) -> None:
    scene = make_scene(Random(seed))
    image = paint(scene)
    assert image.size == (scene.width, scene.height)
    assert image.mode == "RGB"


def test_a_dialogue_has_at_least_the_turns_asked_for() -> None:
    assert len(dialogue(1_000_000_000, images=2, turns=6).turns) >= 6
