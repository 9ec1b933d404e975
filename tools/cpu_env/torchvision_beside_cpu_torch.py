"""Lets a torchvision built for CUDA be imported beside a CPU build of torch.

The Python package index has torchvision for CUDA alone. Its compiled operators cannot load
without CUDA's libraries, and then its import fails where it describes two of them to torch
(`operator torchvision::nms does not exist`). vLLM imports torchvision, though it never calls
these operators. Declaring their schemas first lets the import pass.

`install.py` puts this module and a `.pth` file that imports it into a virtual environment, so
that it acts in every process of it. Nothing happens until torchvision is imported, and nothing
where its operators load.
"""

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder
from pathlib import Path

_SCHEMAS = ("nms", "qnms")
_kept = []  # torch forgets the schemas when their library goes


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
