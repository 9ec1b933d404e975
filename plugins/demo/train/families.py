"""The two models by their types: how each is prompted, sees and is run."""

from __future__ import annotations

from types import ModuleType

import llava
import qwen

from vlm_run_demo import CHECKPOINT, QWEN_CHECKPOINT

FAMILIES: dict[str, ModuleType] = {"demo-llava": llava, "demo-qwen": qwen}
CHECKPOINTS = {"demo-llava": CHECKPOINT, "demo-qwen": QWEN_CHECKPOINT}
