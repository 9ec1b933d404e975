"""Makes a torchvision built for CUDA importable with a CPU build of torch.

The Python package index only has torchvision for CUDA. Its compiled operators cannot be loaded without
the CUDA libraries, and its import then fails when it registers two of them with torch
(`operator torchvision::nms does not exist`). vLLM imports torchvision but never calls these operators.
Declaring their schemas first makes the import succeed.

`install.py` copies this module and a `.pth` file that imports it into a virtual environment, so that it
is active in every process. It imports nothing and does nothing until torchvision is imported, and declares
nothing if the operators can be loaded. Libraries that only look whether torchvision is installed
(`find_spec`), as `datasets` does, do not import torch.
"""

import sys

_SCHEMAS = ("nms", "qnms")
_kept = []  # torch drops the schemas when their library is garbage-collected


class _BeforeTorchvision:
    """A finder on `sys.meta_path` (without its base class, whose import takes 40 ms)."""

    def find_spec(self, name, path=None, target=None):
        if name != "torchvision":
            return None
        from importlib.machinery import PathFinder

        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.origin is None:
            return None
        execute = spec.loader.exec_module

        def execute_with_operators(module):
            _declare_operators(spec.origin)
            execute(module)

        spec.loader.exec_module = execute_with_operators
        return spec


def _declare_operators(torchvision):
    if _kept:  # torchvision is imported again
        return
    from pathlib import Path

    import torch

    for compiled in Path(torchvision).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(compiled)
        except OSError:
            continue
        return
    library = torch.library.Library("torchvision", "DEF")
    _kept.append(library)
    for name in _SCHEMAS:
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


sys.meta_path.insert(0, _BeforeTorchvision())
