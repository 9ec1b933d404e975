"""vlm-run on Ray: batches over several engines, Ray Data, and Ray Serve.

    ds.map_batches(vlm_run.ray.Infer, fn_constructor_args=("qwen2_5-vl-7b-instruct",), ...)
    serve.run(vlm_run.ray.deployment("qwen2_5-vl-7b-instruct", replicas=2))

Needs `pip install 'vlm-run[ray]'`. Importing this package does not import Ray; its modules do.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlm_run.ray.data import Infer as Infer
    from vlm_run.ray.serve import deployment as deployment

_HOME = {"Infer": "data", "deployment": "serve"}

__all__ = sorted(_HOME)  # noqa: PLE0605  (one list of names, not two)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'vlm_run.ray' has no attribute '{name}'")
    return getattr(import_module(f"vlm_run.ray.{_HOME[name]}"), name)
