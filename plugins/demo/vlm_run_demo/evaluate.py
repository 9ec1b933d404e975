"""Score exact answers to the held-out questions, through vlm-run: `python -m vlm_run_demo.evaluate`.

The same questions are also asked with two wrong prompts, another model's chat template and one that
puts the images in the wrong place, to show how many answers a wrong prompt costs.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_run import Registry
from vlm_run.testing import with_adapter
from vlm_run_demo import model_specs
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


def request(example: Example) -> dict[str, Any]:
    """An example as a request to the engine."""
    images = iter(example.images)
    messages = [
        {
            "role": message["role"],
            "content": [
                {"type": "image", "image": next(images)} if part["type"] == "image" else part
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


def score(examples: Sequence[Example], answers: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Number of right answers and of questions, by kind of question and finally for all."""
    asked, right = Counter[str](), Counter[str]()
    for example, answer in zip(examples, answers, strict=True):
        for kind in (example.kind, "all"):
            asked[kind] += 1
            right[kind] += answer == example.answer
    return {kind: (right[kind], asked[kind]) for kind in [*sorted(asked.keys() - {"all"}), "all"]}


def main() -> None:
    """Print a table of right answers for each prompt."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model-type", choices=MODEL_TYPES, default=MODEL_TYPES[0])
    parser.add_argument("--examples", type=int, default=2000, help="number of held-out questions")
    parser.add_argument("--checkpoint", type=Path, help="checkpoint directory in place of the plugin's")
    arguments = parser.parse_args()

    examples = held_out(arguments.examples)
    with Registry.load(arguments.model_type, checkpoint=arguments.checkpoint).engine() as engine:
        for name, template in PROMPTS.items():
            started = time.perf_counter()
            scores = score(examples, ask(engine, examples, template))
            print(f"\n{name} ({time.perf_counter() - started:.0f} s)")
            for kind, (right, asked) in scores.items():
                print(f"  {kind:22} {right:5} of {asked:5}  {right / asked:7.2%}")


if __name__ == "__main__":
    main()
