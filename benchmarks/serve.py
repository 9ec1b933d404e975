"""Compare `vlm-run serve` with `vllm serve` in one run: python benchmarks/serve.py [MODEL] [OPTION …]

Runs `vlm-run bench MODEL --served` with its options; by default demo-llava with small images. Prints a table
and then one JSON object.
"""

from __future__ import annotations

import json
import subprocess
import sys

from vlm_run.cli.bench import print_report

DEFAULTS = ["--size", "256x192", "--max-tokens", "16", "--count", "64", "--rounds", "6"]
CLIENTS = ["--clients", "1", "--clients", "8", "--clients", "32"]


def main() -> None:
    words = sys.argv[1:]
    if {"-h", "--help"} & set(words):
        print(__doc__)
        return
    named = bool(words) and not words[0].startswith("-")
    model, options = (words[0], words[1:]) if named else ("demo-llava", words)
    if "--clients" not in options:
        options += CLIENTS
    start = "from vlm_run.cli import main\nif __name__ == '__main__':\n    main()"
    command = [sys.executable, "-c", start, "bench", model, "--served", "--json", *DEFAULTS, *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    report = json.loads(done.stdout)
    print_report(report)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
