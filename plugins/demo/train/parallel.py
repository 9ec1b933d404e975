"""Training in several processes at once: `torchrun --nproc-per-node 2 -- train.py ...`.

On CPUs that others use, too, processes of one thread wait for each other once an update; threads of one
process would at every operation. Alone, a process needs nothing of this, and nothing here does anything.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor, distributed


def join() -> tuple[int, int]:
    """This process's number and how many there are, once all have been started by torchrun."""
    if "RANK" not in os.environ:
        return 0, 1
    distributed.init_process_group("gloo")
    return distributed.get_rank(), distributed.get_world_size()


def leave() -> None:
    """Say goodbye to the others."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def of_the_first(number: float) -> float:
    """The first process's number, in all."""
    if not distributed.is_initialized():
        return number
    value = torch.tensor(number)
    distributed.broadcast(value, 0)
    return float(value)


def average_gradients(weights: Sequence[Tensor]) -> None:
    """Give all processes the mean of their gradients; one that has none counts as zero."""
    if not distributed.is_initialized():
        return
    grads = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
    flat = torch.cat([grad.flatten() for grad in grads])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    for weight, grad in zip(weights, flat.split([weight.numel() for weight in weights]), strict=True):
        weight.grad = grad.view_as(weight)
