"""CPU time of commands that start no engine, as a ratio to `python -c pass`: python benchmarks/commands.py

Each is a separate process. The commands take turns, and the smallest time of each counts, since other work
on the machine only adds to it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

VLM_RUN = str(Path(sys.executable).with_name("vlm-run"))
COMMANDS = {
    "pass": [sys.executable, "-c", "pass"],
    "--help": [VLM_RUN, "--help"],
    "models": [VLM_RUN, "models"],
    "plugins": [VLM_RUN, "plugins"],
    "explain": [VLM_RUN, "explain", "demo-llava", "What is this?", "--image", "640x480"],
    # What all commands but --help import of other libraries: typer converts parameters with pydantic.
    "import typer._adapters": [sys.executable, "-c", "import typer._adapters"],
}


def cpu_seconds(command: list[str]) -> float:
    """User and system time of a process and of those that it starts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    # With bytecode, which an installed package has.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, env=env)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for number in range(rounds + 1):
        for name, command in COMMANDS.items():
            seconds = cpu_seconds(command)
            if number:  # the first writes bytecode
                times[name].append(seconds)
    least = {name: min(found) for name, found in times.items()}
    ratios = {name: round(seconds / least["pass"], 2) for name, seconds in least.items()}
    versions = {name: version(name) for name in ("vlm-run", "typer", "pydantic")}
    milliseconds = {name: round(1000 * seconds) for name, seconds in least.items()}
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "ratios": ratios,
        "cpu_ms": milliseconds,
        "versions": versions,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
