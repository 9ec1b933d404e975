"""Arithmetic in bfloat16 where the device has it."""

from __future__ import annotations

import torch


def mixed_precision(device: torch.device) -> torch.autocast:
    """Matrix products in bfloat16; in float32 on a CPU that would only emulate it, which takes far longer."""
    emulated = device.type == "cpu" and not torch.cpu._is_avx512_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=not emulated)
