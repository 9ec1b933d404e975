"""Time `vlm-run models` with many plugins installed: python benchmarks/many_plugins.py [COUNT]

Installs the plugins, each as `vlm-run plugin new` writes it, in a temporary directory on PYTHONPATH, and
times the whole process with and without them, in turns; the environment's own plugins are included. CPU
time does not depend on how busy the machine is, and is a lower bound for the wall-clock time.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from vlm_run.scaffold import NewPlugin, write

RUNS = 15
COMMAND = [sys.executable, "-c", "from vlm_run.cli import main; main()", "models"]


def install(directory: Path, number: int) -> None:
    """Write what pip installs for a package: its modules and its dist-info directory."""
    name = f"bench-{number:03}"
    plugin = NewPlugin(name, name, "LlavaForConditionalGeneration", f"bench/{name}", "<image>")
    source = directory / f"source-{number:03}"
    write(plugin, source)
    (source / plugin.package).rename(directory / plugin.package)
    info = directory / f"{plugin.package}-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {plugin.distribution}\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(f"[vlm_run.plugins]\n{plugin.package} = {plugin.package}\n")


def seconds(environment: dict[str, str]) -> tuple[float, float]:
    """Wall-clock and CPU time of the command, as a process of its own."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(COMMAND, env=environment, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory() as path:
        for number in range(count):
            install(Path(path), number)
        here = os.environ.get("PYTHONPATH", "")
        environments = {
            "none": dict(os.environ),
            f"{count}": {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [path, here]))},
        }
        for environment in environments.values():
            seconds(environment)  # writes the compiled modules, as pip does
        times = {name: [] for name in environments}
        for _ in range(RUNS):
            for name, environment in environments.items():
                times[name].append(seconds(environment))
    print(f"{RUNS} runs of `vlm-run models`, in turns; fastest and median in seconds")
    for name, measured in times.items():
        wall, own = zip(*measured, strict=True)
        print(
            f"{name} more plugins: wall clock {min(wall):.3f}, {statistics.median(wall):.3f}; "
            f"processor {min(own):.3f}, {statistics.median(own):.3f}"
        )


if __name__ == "__main__":
    main()
