"""What training minimizes."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import torch
from batches import Batch
from precision import mixed_precision
from torch import Tensor, nn

from vlm_run_demo.drawing import CLASSES

CENTRE_WEIGHT = 4.0
"""Loss of a centre beside that of a middle: few features hold a centre."""
PLACES = 10
"""Rows or columns that count as one in the loss of places."""


class Heads(nn.Module):  # type: ignore[misc]
    """Linear layers that are not part of the model, by which it has to tell what it knows."""

    def __init__(self, hidden_size: int, patches: int, numbers: int) -> None:
        """`patches`: those that one feature stands for; `numbers`: those about the nearest shape."""
        super().__init__()
        self.sight = nn.Linear(hidden_size, (patches + 1) * CLASSES + numbers)
        self.place = nn.Linear(hidden_size, 3)


@dataclass(frozen=True)
class Loss:
    """How wrong a model is about a batch.

    Attributes:
        answers: Whether the language model is run and learns to answer.
        looks: What the features are to look like, as `warm_start.py` writes it, if anything.
    """

    answers: bool
    heads: Heads
    looks: Tensor | None

    def of(self, family: ModuleType, model: nn.Module, batch: Batch) -> Tensor:
        """Losses of an answer token, of features, of their looks, and of where they stand: (4,).

        Answers alone teach the tower colours in minutes but shapes only in hours, so each feature has to
        tell which shape is at the middle of its patches, which has its centre in it, and where the centre
        and the edges of the nearest one are and how large that is. Centres are what can be counted.
        """
        nothing = torch.zeros((), device=batch.tokens.device)
        with mixed_precision(batch.tokens.device):
            features = family.features(model, batch)
            logits, early = family.run(model, batch, features) if self.answers else (None, None)
            told = self.heads.sight(features)
        answers = nothing if logits is None else nn.functional.cross_entropy(logits, batch.answers)
        if not len(features):
            return torch.stack([answers, nothing, nothing, nothing])
        looks = nothing if self.looks is None else unlikeness(features.float(), self.looks, batch)
        places = nothing if early is None else misplacement(self.heads.place, early.float(), batch)
        return torch.stack([answers, blindness(told.float(), batch), looks, places])


def blindness(told: Tensor, batch: Batch) -> Tensor:
    """How wrong `Heads.sight` is about what features show."""
    numbers = batch.nearest.shape[1]
    classes, near = told.split([told.shape[1] - numbers, numbers], dim=1)
    classes = classes.unflatten(-1, (-1, CLASSES))
    middles = nn.functional.cross_entropy(classes[:, :-1].flatten(0, 1), batch.classes.flatten())
    centres = nn.functional.cross_entropy(classes[:, -1], batch.centres)
    known = ~batch.nearest.isnan()
    nearest = (near - batch.nearest)[known].abs().sum() / known.sum().clamp(min=1)
    return middles + CENTRE_WEIGHT * (centres + nearest)


def misplacement(place: nn.Linear, early: Tensor, batch: Batch) -> Tensor:
    """How wrong image tokens are about their time, row and column, and the token behind about the last.

    Rotary positions say how far two tokens are from each other. Corners can be told from each other only
    once that has become something known of a token.
    """
    is_image = batch.rows > 0
    # The first two rows of features are none.
    where = nn.functional.pad(batch.where, (0, 0, 2, 0))[batch.rows].float()
    behind = is_image.roll(1, 1) & ~is_image
    wanted = torch.where(behind[..., None], where.roll(1, 1), where)
    known = is_image | behind
    return (place(early[known]) - wanted[known] / PLACES).abs().mean()


def unlikeness(features: Tensor, looks: Tensor, batch: Batch) -> Tensor:
    """Squared distance of features to the looks of what they show, in units of the looks' variance.

    Where a shape is counts three times as much as where none is, and its centre `CENTRE_WEIGHT` more.
    """
    middles, is_centre = batch.classes.max(1).values, batch.centres > 0
    wanted = torch.where(is_centre[:, None], looks[1, batch.centres], looks[0, middles])
    weight = 1.0 + 2.0 * (middles > 0) + CENTRE_WEIGHT * is_centre
    distance = (features - wanted).square().mean(1)
    return (distance * weight).sum() / weight.sum() / looks.flatten(0, 1).var(0).mean()
