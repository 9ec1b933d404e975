"""How long `vlm-run models` takes with many plugins installed: python benchmarks/many_plugins.py [COUNT]

Installs the plugins, each as `vlm-run plugin new` writes it, in a temporary folder on PYTHONPATH, and
times the whole process. Compare with COUNT 0: what the environment's own plugins take.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from vlm_run.scaffold import NewPlugin, write

RUNS = 15
COMMAND = [sys.executable, "-c", "from vlm_run.cli import main; main()", "models"]


def install(folder: Path, number: int) -> None:
    """What pip leaves of a package: its modules and its dist-info folder."""
    name = f"bench-{number:03}"
    plugin = NewPlugin(name, name, "LlavaForConditionalGeneration", f"bench/{name}", "<image>")
    source = folder / f"source-{number:03}"
    write(plugin, source)
    (source / plugin.package).rename(folder / plugin.package)
    info = folder / f"{plugin.package}-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {plugin.distribution}\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(f"[vlm_run.plugins]\n{plugin.package} = {plugin.package}\n")


def seconds(environment: dict[str, str]) -> float:
    """Wall-clock time of the command as a process."""
    started = time.perf_counter()
    subprocess.run(COMMAND, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory() as path:
        for number in range(count):
            install(Path(path), number)
        environment = {**os.environ, "PYTHONPATH": path}
        seconds(environment)  # writes the compiled modules, as pip does
        times = [seconds(environment) for _ in range(RUNS)]
    print(
        f"{count} more plugins, {RUNS} runs of `vlm-run models`: "
        f"fastest {min(times):.3f} s, median {statistics.median(times):.3f} s, slowest {max(times):.3f} s"
    )


if __name__ == "__main__":
    main()
