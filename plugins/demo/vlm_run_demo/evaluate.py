"""Score answers to the held-out questions, through vlm-run: `python -m vlm_run_demo.evaluate`.

The same is also asked in wrong ways, to show what they cost: questions with another model's chat template and
with one that puts the images in the wrong place, questions for boxes with answers read in other coordinates
than the model writes, questions about videos with the frames in another order.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from vlm_run import Adapter, BoxCoordinates, Limits, Registry
from vlm_run.testing import with_adapter
from vlm_run_demo import model_specs
from vlm_run_demo.boxes import MAXIMUM, BoxExample, held_out_boxes, overlap
from vlm_run_demo.clip_questions import held_out_clips
from vlm_run_demo.dialogues import Example, held_out

if TYPE_CHECKING:
    from vlm_run import Engine

WRONG_TEMPLATES = Path(__file__).parent / "wrong_templates"
MODEL_TYPES = tuple(spec.model_type for spec in model_specs())
PROMPTS: Mapping[str, str | None] = {
    "right": None,
    "another model's template": "vicuna.jinja",
    "images after the question": "images-last.jinja",
}
"""Chat template by name: the model's own (None) or a wrong one."""
COORDINATES: Mapping[str, BoxCoordinates] = {
    "0 to 1000, as the model writes them": BoxCoordinates(maximum=MAXIMUM),
    "pixels of the resized image": BoxCoordinates(maximum=None),
    "y before x": BoxCoordinates(maximum=MAXIMUM, y_first=True),
}
"""Coordinates in which to read boxes."""
ORDERS: Mapping[str, Callable[[int], Iterable[int]] | None] = {
    "frames in order": None,
    "frames in reverse": lambda count: reversed(range(count)),
    "frames shuffled": lambda count: Random(count).sample(range(count), count),
}
"""From the number of frames to the order in which to show them; None as they are."""


def request(example: Example) -> dict[str, Any]:
    """An example as a request to the engine."""
    media = {"image": iter(example.images), "video": iter(example.videos)}
    messages = [
        {
            "role": message["role"],
            "content": [
                {**part, kind: next(media[kind])} if (kind := part["type"]) in media else part
                for part in message["content"]
            ],
        }
        for message in example.messages
    ]
    return {"messages": messages}


def ask(engine: Engine, examples: Sequence[Example], template: str | None = None) -> list[str]:
    """The engine's answers, with the model's own chat template or a wrong one from `PROMPTS`.

    Raises:
        RequestError: A request failed.
    """
    if template is not None:
        model_type = engine.adapter.spec.model_type
        wrong = WRONG_TEMPLATES / model_type / template
        engine = with_adapter(engine, Registry.load(model_type, chat_template=wrong))
    responses = engine.infer([request(example) for example in examples], {"max_tokens": 32})
    return [response.raise_for_error().response for response in responses]


def overlaps(
    engine: Engine, examples: Sequence[BoxExample], coordinates: BoxCoordinates | None = None
) -> list[float]:
    """How much the boxes of the engine's answers overlap with the right ones; 0 without a box.

    Args:
        engine: A running engine.
        examples: Questions for one box each.
        coordinates: How to read the answers; None for what the model's spec says.

    Raises:
        RequestError: A request failed.
    """
    if coordinates is not None:
        spec = engine.adapter.spec.model_copy(update={"box_coordinates": coordinates})
        engine = with_adapter(engine, replace(engine.adapter, spec=spec))
    responses = engine.infer([request(example) for example in examples], {"max_tokens": 48})
    boxes = [response.raise_for_error().boxes for response in responses]
    return [
        overlap(given[0].edges, example.edges) if given else 0.0
        for given, example in zip(boxes, examples, strict=True)
    ]


def score(examples: Sequence[Example], answers: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Number of right answers and of questions, by kind of question and finally for all."""
    asked, right = Counter[str](), Counter[str]()
    for example, answer in zip(examples, answers, strict=True):
        for kind in (example.kind, "all"):
            asked[kind] += 1
            right[kind] += answer == example.answer
    return {kind: (right[kind], asked[kind]) for kind in [*sorted(asked.keys() - {"all"}), "all"]}


def report(name: str, scores: Mapping[str, tuple[int, int]]) -> None:
    """Print right answers by kind of question."""
    print(f"\n{name}")
    for kind, (right, asked) in scores.items():
        print(f"  {kind:22} {right:5} of {asked:5}  {right / asked:7.2%}", flush=True)


def evaluate_questions(engine: Engine, count: int) -> None:
    """Print a table of right answers for each prompt."""
    examples = held_out(count)
    for name, template in PROMPTS.items():
        report(name, score(examples, ask(engine, examples, template)))


def evaluate_boxes(engine: Engine, count: int) -> None:
    """Print how much boxes overlap with the right ones, for each way to read coordinates."""
    examples = held_out_boxes(count)
    for name, coordinates in COORDINATES.items():
        found = overlaps(engine, examples, coordinates)
        none = sum(each == 0.0 for each in found)
        print(f"\nboxes, {name}")
        print(f"  median IoU {median(found):.3f}, mean {fmean(found):.3f}; {none} of {count} without overlap")


def evaluate_videos(engine: Engine, count: int) -> None:
    """Print a table of right answers for each order of the frames."""
    examples = held_out_clips(count)
    for name, order in ORDERS.items():
        shown = examples if order is None else [example.reordered(order) for example in examples]
        report(name, score(shown, ask(engine, shown)))


def load(model_type: str, checkpoint: Path | None = None) -> Adapter:
    """A model that takes what its questions show: images, or also a video.

    Args:
        model_type: One of `MODEL_TYPES`.
        checkpoint: A checkpoint directory in place of the plugin's.
    """
    limits = Limits(max_videos=1) if Registry.load(model_type).spec.video else Limits()
    return Registry.load(model_type, checkpoint=checkpoint, limits=limits)


def main() -> None:
    """Print the scores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model-type", choices=MODEL_TYPES, default=MODEL_TYPES[0])
    parser.add_argument("--examples", type=int, default=2000, help="number of held-out questions")
    parser.add_argument("--boxes", type=int, default=500, help="number of held-out questions for boxes")
    parser.add_argument("--videos", type=int, default=500, help="number of held-out questions about videos")
    parser.add_argument("--checkpoint", type=Path, help="checkpoint directory in place of the plugin's")
    arguments = parser.parse_args()

    adapter = load(arguments.model_type, arguments.checkpoint)
    spec = adapter.spec
    with adapter.engine() as engine:
        if arguments.examples:
            evaluate_questions(engine, arguments.examples)
        if spec.box_coordinates and arguments.boxes:
            evaluate_boxes(engine, arguments.boxes)
        if spec.video and arguments.videos:
            evaluate_videos(engine, arguments.videos)


if __name__ == "__main__":
    main()
