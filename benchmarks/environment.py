"""What a report says about the machine and the versions that it was measured with."""

from __future__ import annotations

import os
import platform
from datetime import date
from importlib.metadata import version
from typing import Any

from vlm_run.engine.versions import vllm_version


def environment(*distributions: str) -> dict[str, Any]:
    """The versions of vLLM, of other distributions and of Python, the number of cores, and the date."""
    return {
        "versions": {
            "vllm": str(vllm_version()),
            **{name: version(name) for name in distributions},
            "python": platform.python_version(),
        },
        "cores": len(os.sched_getaffinity(0)),
        "date": date.today().isoformat(),
    }
