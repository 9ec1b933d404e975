"""Makes a torchvision built for CUDA importable with a CPU build of torch.

The Python package index only has torchvision for CUDA. Its compiled operators cannot be loaded without
the CUDA libraries, and its import then fails when it registers two of them with torch
(`operator torchvision::nms does not exist`). vLLM imports torchvision but never calls these operators.
Declaring their schemas first makes the import succeed.

`install.py` copies this module and a `.pth` file that imports it into a virtual environment, so that it
is active in every process. It does nothing until torchvision is imported, and nothing if the operators
can be loaded.
"""

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder
from pathlib import Path

_SCHEMAS = ("nms", "qnms")
_kept = []  # torch drops the schemas when their library is garbage-collected


class _BeforeTorchvision(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            _declare_operators()


def _declare_operators():
    spec = PathFinder.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return
    import torch

    for compiled in Path(spec.origin).parent.glob("_C*.so"):
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
