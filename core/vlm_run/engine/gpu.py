"""How busy the GPU is, by its driver."""

from __future__ import annotations

import os
from collections.abc import Callable


def gpu_utilization() -> Callable[[], int] | None:
    """A function that reads the utilization of the first GPU in percent; None without a GPU."""
    try:
        from vllm.third_party import pynvml

        pynvml.nvmlInit()
        number = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
        handle = pynvml.nvmlDeviceGetHandleByIndex(int(number))
    except Exception:  # no NVIDIA driver, or a device that is not named by a number
        return None
    return lambda: int(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)
