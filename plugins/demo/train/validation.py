"""How well a model answers the validation examples while it is trained."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from types import ModuleType

import torch
from batches import Batch
from precision import mixed_precision
from tokenizers import Tokenizer
from torch import Tensor, nn

from vlm_run import ImageSize
from vlm_run.boxes import BoxCoordinates, parse_boxes
from vlm_run_demo.boxes import MAXIMUM, overlap

BOX = "box"
"""The kind of question whose answers are scored by how much boxes overlap."""

_SQUARE = [ImageSize(MAXIMUM, MAXIMUM)]
"""In which coordinates are pixels: overlap does not depend on the image's size."""


def scores(
    family: ModuleType,
    model: nn.Module,
    tokenizer: Tokenizer,
    batches: Iterable[tuple[list[str], Batch]],
    device: torch.device,
) -> dict[str, float]:
    """Share of examples whose whole greedy answer is right, by kind and for all; of boxes, mean overlap."""
    points: dict[str, list[float]] = defaultdict(list)
    for kinds, cpu_batch in batches:
        batch = cpu_batch.to(device)
        wanted = right_answers(batch)
        given = generate(family, model, batch, max(map(len, wanted)) + 2)
        for kind, right, answer in zip(kinds, wanted, given, strict=True):
            if kind == BOX:
                points[kind].append(_overlap(tokenizer, right, answer))
            else:
                points[kind].append(answer[: len(right)] == right)
                points["all"].append(answer[: len(right)] == right)
    return {kind: sum(points[kind]) / len(points[kind]) for kind in sorted(points)}


def right_answers(batch: Batch) -> list[list[int]]:
    """The answer tokens of each dialogue, the last of which ends the answer."""
    answers: list[list[int]] = [[] for _ in batch.tokens]
    for owner, token in zip(batch.owners.tolist(), batch.answers.tolist(), strict=True):
        answers[owner].append(token)
    return answers


@torch.no_grad()  # type: ignore[untyped-decorator]
def generate(family: ModuleType, model: nn.Module, batch: Batch, count: int) -> list[list[int]]:
    """Up to `count` greedy tokens after the prompt of each dialogue, of which one answer counts.

    All tokens are run again for each new one, which is quick enough for a few short answers.
    """
    length = batch.tokens.shape[1]
    every = torch.arange(len(batch.tokens), device=batch.tokens.device)
    first = _first_places(batch)
    count = min(count, length - 1 - int((first % length).max()))
    tokens, positions = batch.tokens.clone(), batch.positions.clone()
    given = []
    with mixed_precision(batch.tokens.device):
        features = family.features(model, batch)
        for step in range(count):
            places = first + step
            known = replace(batch, tokens=tokens, positions=positions, places=places)
            new = family.answer_logits(model, known, features).argmax(-1)
            given.append(new)
            columns = places % length
            tokens[every, columns + 1] = new
            # Padding has no positions of its own.
            positions[:, every, columns + 1] = positions[:, every, columns] + 1
    answers: list[list[int]] = torch.stack(given, dim=1).tolist()
    return answers


def _first_places(batch: Batch) -> Tensor:
    """The place of the last token of each prompt, as in `Batch.places`."""
    _, counts = batch.owners.unique_consecutive(return_counts=True)
    return batch.places[counts.cumsum(0) - counts]


def _overlap(tokenizer: Tokenizer, right: Sequence[int], answer: Sequence[int]) -> float:
    coordinates = BoxCoordinates(maximum=MAXIMUM)
    texts = (tokenizer.decode(list(tokens), skip_special_tokens=False) for tokens in (right, answer))
    (wanted, *_), given = (parse_boxes(text, coordinates, _SQUARE) for text in texts)
    return overlap(wanted.edges, given[0].edges) if given else 0.0
