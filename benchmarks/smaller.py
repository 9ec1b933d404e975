"""Compare answers when JPEGs are decoded at a lower resolution: python benchmarks/smaller.py [COUNT]

Asks demo-llava its held-out questions about images that are enlarged sevenfold, smoothly or with hard
edges, and saved as JPEGs. Every file is decoded at full resolution, and at the lowest resolution that keeps
the number of tokens and keeps each side at least a given factor longer than what the model's encoder sees.
The engine gets the decoded images, so nothing else differs.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

from PIL import Image

from vlm_run import Engine, MediaPolicy, Registry
from vlm_run.media.decode import decode
from vlm_run_demo.dialogues import Example, held_out
from vlm_run_demo.evaluate import ask

ENLARGED = 7
SPARE = (1, 2)


def jpeg(image: Image.Image, resampling: Image.Resampling) -> bytes:
    """The enlarged image, encoded as a JPEG."""
    buffer = io.BytesIO()
    size = (image.width * ENLARGED, image.height * ENLARGED)
    image.resize(size, resampling).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def main() -> None:
    """Compare answers for images enlarged in both ways."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    examples = list(islice((each for each in held_out() if each.images), count))
    with Registry.load("demo-llava").engine() as engine:
        for resampling in (Image.Resampling.BICUBIC, Image.Resampling.NEAREST):
            files = [[jpeg(image, resampling) for image in each.images] for each in examples]
            compare(engine, examples, files, resampling.name.lower())


def compare(
    engine: Engine, examples: Sequence[Example], files: Sequence[Sequence[bytes]], enlarged: str
) -> None:
    """Decode, ask, and print how many answers equal those at full resolution."""
    facts = engine.adapter.spec.vision
    assert facts is not None

    def answers(spare: float | None) -> tuple[list[str], float, int]:
        smaller = 0

        def may(size: tuple[int, int], small: tuple[int, int]) -> bool:
            nonlocal smaller
            seen = facts.resized(*size)
            fits = (
                spare is not None
                and facts.resized(*small) == seen
                and facts.count_image_tokens(*small) == facts.count_image_tokens(*size)
                and all(side >= spare * least for side, least in zip(small, seen, strict=True))
            )
            smaller += fits
            return fits

        started = time.process_time()
        decoded = [[decode(file, MediaPolicy(), may) for file in each] for each in files]
        seconds = time.process_time() - started
        asked = [replace(each, images=images) for each, images in zip(examples, decoded, strict=True)]
        return ask(engine, asked), seconds, smaller

    whole, seconds, _ = answers(None)
    print(f"{enlarged}, full resolution: {sum(map(len, files))} images, decoded in {seconds:.1f} s")
    for spare in SPARE:
        given, seconds, smaller = answers(spare)
        same = sum(mine == theirs for mine, theirs in zip(given, whole, strict=True))
        print(
            f"{enlarged}, {spare} times what the encoder sees: {smaller} decoded at a lower resolution "
            f"in {seconds:.1f} s; "
            f"{same} of {len(whole)} answers identical",
            flush=True,
        )


if __name__ == "__main__":
    main()
