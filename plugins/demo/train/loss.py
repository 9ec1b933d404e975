"""What training minimises."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import torch
from batches import Batch
from torch import Tensor, nn

from vlm_run_demo.drawing import CLASSES

CENTRE_WEIGHT = 4.0
"""Loss of a centre beside that of a middle: few features hold a centre."""


@dataclass(frozen=True)
class Loss:
    """How wrong a model is about a batch.

    Attributes:
        answers: Whether the language model is run and learns to answer.
        head: Tells from a feature what it shows; not part of the model.
        looks: What the features are to look like, as `warm_start.py` writes it, if anything.
    """

    answers: bool
    head: nn.Linear
    looks: Tensor | None

    def of(self, family: ModuleType, model: nn.Module, batch: Batch) -> Tensor:
        """Losses of an answer token, of what a feature shows and of how it looks: (3,).

        Besides answering, each feature has to tell through `head` which shape is at the middle of its
        patches and which has its centre in it. Answers alone teach the tower colours in minutes but
        shapes only in hours; centres are what can be counted.
        """
        nothing = torch.zeros((), device=batch.tokens.device)
        with torch.autocast(batch.tokens.device.type, torch.bfloat16):
            features = family.features(model, batch)
            logits = family.answer_logits(model, batch, features) if self.answers else None
            told = self.head(features)
        answers = nothing if logits is None else nn.functional.cross_entropy(logits, batch.answers)
        if not len(features):
            return torch.stack([answers, nothing, nothing])
        told = told.float().unflatten(-1, (-1, CLASSES))
        middles = nn.functional.cross_entropy(told[:, :-1].flatten(0, 1), batch.classes.flatten())
        centres = nn.functional.cross_entropy(told[:, -1], batch.centres)
        looks = nothing if self.looks is None else unlikeness(features.float(), self.looks, batch)
        return torch.stack([answers, middles + CENTRE_WEIGHT * centres, looks])


def unlikeness(features: Tensor, looks: Tensor, batch: Batch) -> Tensor:
    """Squared distance of features to the looks of what they show, in units of the looks' variance.

    Where a shape is counts three times as much as where none is, and its centre `CENTRE_WEIGHT` more.
    """
    middles, is_centre = batch.classes.max(1).values, batch.centres > 0
    wanted = torch.where(is_centre[:, None], looks[1, batch.centres], looks[0, middles])
    weight = 1.0 + 2.0 * (middles > 0) + CENTRE_WEIGHT * is_centre
    distance = (features - wanted).square().mean(1)
    return (distance * weight).sum() / weight.sum() / looks.flatten(0, 1).var(0).mean()
