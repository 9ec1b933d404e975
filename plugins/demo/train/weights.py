"""Weights in files, in bfloat16 under the names that checkpoints on the hub have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

HubName = Callable[[str], str]
"""From the name of a parameter in transformers to that on the hub."""


def save_weights(model: nn.Module, hub_name: HubName, path: Path) -> None:
    """Write the weights of `model`."""
    weights = {
        hub_name(name): weight.detach().to("cpu", torch.bfloat16).contiguous()
        for name, weight in model.named_parameters()
    }
    save_file(weights, path, metadata={"format": "pt"})


def load_weights(model: nn.Module, hub_name: HubName, path: Path) -> None:
    """Read weights that `save_weights` wrote."""
    weights = load_file(path)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(weights[hub_name(name)])
