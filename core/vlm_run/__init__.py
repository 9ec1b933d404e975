"""Run any vision-language model on vLLM through one small plugin contract.

The public names; each is imported when first used, so that `import vlm_run` is instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlm_run.adapter import Adapter as Adapter
    from vlm_run.engine import Engine as Engine
    from vlm_run.errors import VlmRunError as VlmRunError
    from vlm_run.hookspecs import hookimpl as hookimpl
    from vlm_run.media import MediaPolicy as MediaPolicy
    from vlm_run.media import convert_to_base64 as convert_to_base64
    from vlm_run.plugins.discovery import PluginWarning as PluginWarning
    from vlm_run.prompts.conversation import Conversation as Conversation
    from vlm_run.registry import Registry as Registry
    from vlm_run.request import Request as Request
    from vlm_run.request import Sampling as Sampling
    from vlm_run.response import Response as Response
    from vlm_run.specs import Limits as Limits
    from vlm_run.specs import ModelSpec as ModelSpec
    from vlm_run.vision import AnyResolution as AnyResolution
    from vlm_run.vision import DynamicResolution as DynamicResolution
    from vlm_run.vision import FixedResolution as FixedResolution
    from vlm_run.vision import VisionFacts as VisionFacts

__version__ = "0.1.0"

_HOME = {
    "Adapter": "adapter",
    "AnyResolution": "vision",
    "Conversation": "prompts.conversation",
    "DynamicResolution": "vision",
    "Engine": "engine",
    "FixedResolution": "vision",
    "Limits": "specs",
    "MediaPolicy": "media",
    "ModelSpec": "specs",
    "PluginWarning": "plugins.discovery",
    "Registry": "registry",
    "Request": "request",
    "Response": "response",
    "Sampling": "request",
    "VisionFacts": "vision",
    "VlmRunError": "errors",
    "convert_to_base64": "media",
    "hookimpl": "hookspecs",
}

__all__ = sorted(_HOME)  # noqa: PLE0605  (one list of names, not two)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'vlm_run' has no attribute '{name}'")
    value = getattr(import_module(f"vlm_run.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
