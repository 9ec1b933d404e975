"""Run all GPU measurements within a time limit: python benchmarks/gpu.py --out DIRECTORY

Models have real dimensions and random weights (benchmarks/checkpoints.py). Each step is a run of
`vlm-run bench` whose JSON is written to DIRECTORY as soon as it is complete. Steps that do not fit into
--seconds are skipped and named; run the same command again for the steps missing in DIRECTORY. It needs
vlm-run and its plugins installed, but neither the hub nor a package index. `--tiny` tries the command on
a machine without a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checkpoints import write

BENCH = [
    sys.executable,
    "-c",
    "from vlm_run.cli import main\nif __name__ == '__main__':\n    main()",
    "bench",
]
QWEN, LLAVA, PHI = "qwen2-vl-2b-instruct", "llava1_6-mistral-7b-instruct", "phi3-vision-128k-instruct"


@dataclass(frozen=True, slots=True)
class Step:
    """A run of `vlm-run bench`.

    Attributes:
        name: Name of its result.
        model: A model type.
        options: Options of the command.
        tiny: Options used with --tiny instead.
        seconds: Estimated duration on an H200; the step is skipped if less time is left.
    """

    name: str
    model: str
    options: tuple[str, ...]
    tiny: tuple[str, ...]
    seconds: int


# With KV caches of a fixed size all sides start at once.
_ENGINE = ("--engine", "max_model_len=4096", "--engine", f"kv_cache_memory_bytes={8 * 2**30}")
# Compilation takes longer than these two measurements.
_EAGER = ("--engine", "max_model_len=4096", "--engine", f"kv_cache_memory_bytes={16 * 2**30}")
_EAGER += ("--engine", "enforce_eager=true")
_OFFLINE = ("--count", "8", "--size", "112x112", "--renderers", "1")
_SERVED = ("--served", "--clients", "1", "--clients", "4", "--count", "8", "--size", "112x112")
STEPS = (
    Step("llava", LLAVA, ("--count", "128", "--size", "672x672", *_EAGER), _OFFLINE, 180),
    # Transformers 5 does not know Phi-3-vision's `phi3_v`, so vLLM loads it only with the plugin's classes.
    Step(
        "phi",
        PHI,
        ("--count", "128", "--size", "672x672", "--plain", "same", *_EAGER),
        ("--count", "1", "--rounds", "1", "--size", "112x112", "--renderers", "1", "--plain", "same"),
        180,
    ),
    Step(
        "qwen",
        QWEN,
        (
            *("--count", "320", "--size", "672x672", "--size", "1344x1008"),
            *("--plain", "own", "--plain", "same", *_ENGINE),
        ),
        _OFFLINE,
        500,
    ),
    Step(
        "qwen-served",
        QWEN,
        (
            *("--served", "--clients", "64", "--clients", "1", "--api-servers", "8"),
            *("--count", "256", "--size", "672x672", *_ENGINE),
        ),
        (*_SERVED, "--api-servers", "2"),
        380,
    ),
    Step(
        "qwen-served-long",
        QWEN,
        (
            *("--served", "--clients", "64", "--count", "256"),
            *("--size", "224x224", "--max-tokens", "256", *_ENGINE),
        ),
        _SERVED,
        150,
    ),
)
# Engine options for a tiny model on a CPU.
_CPU = ("--engine", "kv_cache_memory_bytes=134217728", "--engine", "max_model_len=4096")
_CPU_EAGER = (*_CPU, "--engine", "enforce_eager=true", "--engine", "max_num_seqs=8")


def run(step: Step, checkpoint: Path, seconds: float, *, tiny: bool) -> dict[str, Any]:
    """The step's report, or an `error` in place of it."""
    options = (*step.tiny, *_CPU_EAGER) if tiny else step.options
    command = [*BENCH, step.model, "--model", str(checkpoint), "--json", *options]
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
        )
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            # The whole process group: otherwise vLLM's processes would keep the GPU memory.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return {"error": f"not done after {seconds:.0f} s"}
        log.seek(0)
        error = log.read()[-2000:]
    report: dict[str, Any] = {"error": error}
    if process.returncode == 0:
        report = json.loads(output)
    return {**report, "command": command[3:], "took_seconds": round(time.monotonic() - started)}


def main() -> None:
    """Parse the command line and run the steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="directory for one JSON file per step")
    parser.add_argument("--seconds", type=float, default=540, help="for all steps together")
    parser.add_argument("--only", action="append", choices=[step.name for step in STEPS])
    parser.add_argument("--tiny", action="store_true", help="small dimensions and few images")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + asked.seconds
    with tempfile.TemporaryDirectory() as directory:
        for step in STEPS:
            if (asked.only and step.name not in asked.only) or is_done(asked.out / f"{step.name}.json"):
                continue
            left = until - time.monotonic()
            if left < step.seconds:
                print(f"{step.name}: left out, {left:.0f} s are left", flush=True)
                continue
            checkpoint = write(step.model, Path(directory), tiny=asked.tiny)
            report = run(step, checkpoint, left, tiny=asked.tiny)
            (asked.out / f"{step.name}.json").write_text(json.dumps(report, indent=2))
            print(f"{step.name}: {report.get('error') or summary(report)}", flush=True)


def is_done(file: Path) -> bool:
    """Whether a step has a report without an error."""
    return file.exists() and "error" not in json.loads(file.read_text())


def summary(report: dict[str, Any]) -> str:
    """One line for each row of a step."""
    return "".join(
        f"\n  {row['side']}, {row['size'][0]}×{row['size'][1]}, clients {row['clients']}: "
        f"{row['images_per_second']} images/s ({row['ratio']}×, answers {row['same_answers']:.0%} the same)"
        for row in report["results"]
    )


if __name__ == "__main__":
    main()
