"""Pixels as both vision towers take them."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

# CLIP's mean and deviation, of pixel levels between 0 and 1.
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)


@cache
def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and deviation of pixel levels from 0 to 255, kept on the device."""
    return torch.tensor(MEAN, device=device) * 255, torch.tensor(DEVIATION, device=device) * 255


def normalized(pixels: Tensor) -> Tensor:
    """uint8 tiles or patches (n, height, width, 3) as the towers take them: (n, 3, height, width)."""
    mean, deviation = _statistics(pixels.device)
    return ((pixels - mean) / deviation).permute(0, 3, 1, 2)
