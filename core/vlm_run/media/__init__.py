"""Loads images from any source under one policy, which the Python API, commands and server share.

The names below are imported on first use: conversations refer to image sources and must not import
Pillow for that.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlm_run.media.encode import convert_to_base64 as convert_to_base64
    from vlm_run.media.load import load_image as load_image
    from vlm_run.media.load import load_image_async as load_image_async
    from vlm_run.media.policy import MediaPolicy as MediaPolicy
    from vlm_run.media.source import Pages as Pages

_MODULES = {
    "MediaPolicy": "policy",
    "Pages": "source",
    "convert_to_base64": "encode",
    "load_image": "load",
    "load_image_async": "load",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'vlm_run.media' has no attribute '{name}'")
    return getattr(import_module(f"vlm_run.media.{_MODULES[name]}"), name)
