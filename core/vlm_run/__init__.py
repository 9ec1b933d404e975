"""Run any vision-language model on vLLM through one small plugin contract.

Every public name below is imported on first use, so that `import vlm_run` is instant. `vlm_run.explain`
and `vlm_run.testing` are public modules too.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlm_run.adapter import Adapter as Adapter
    from vlm_run.boxes import Box as Box
    from vlm_run.boxes import BoxCoordinates as BoxCoordinates
    from vlm_run.boxes import ImageSize as ImageSize
    from vlm_run.boxes import draw_boxes as draw_boxes
    from vlm_run.engine import Engine as Engine
    from vlm_run.errors import ContextOverflowError as ContextOverflowError
    from vlm_run.errors import ConversationError as ConversationError
    from vlm_run.errors import DownloadError as DownloadError
    from vlm_run.errors import EngineError as EngineError
    from vlm_run.errors import MediaError as MediaError
    from vlm_run.errors import MediaWarning as MediaWarning
    from vlm_run.errors import PluginError as PluginError
    from vlm_run.errors import RequestError as RequestError
    from vlm_run.errors import TemplateError as TemplateError
    from vlm_run.errors import UnknownModelError as UnknownModelError
    from vlm_run.errors import UnknownTokenCountError as UnknownTokenCountError
    from vlm_run.errors import VlmRunError as VlmRunError
    from vlm_run.hookspecs import hookimpl as hookimpl
    from vlm_run.media import MediaPolicy as MediaPolicy
    from vlm_run.media import convert_to_base64 as convert_to_base64
    from vlm_run.media.source import Frames as Frames
    from vlm_run.media.source import ImageSource as ImageSource
    from vlm_run.plugins.discovery import PluginWarning as PluginWarning
    from vlm_run.prompts.conversation import Conversation as Conversation
    from vlm_run.prompts.conversation import Image as Image
    from vlm_run.prompts.conversation import Message as Message
    from vlm_run.prompts.conversation import Text as Text
    from vlm_run.prompts.conversation import Video as Video
    from vlm_run.prompts.prompt import Prompt as Prompt
    from vlm_run.registry import Registry as Registry
    from vlm_run.request import Request as Request
    from vlm_run.request import Sampling as Sampling
    from vlm_run.response import Delta as Delta
    from vlm_run.response import Response as Response
    from vlm_run.response import Stages as Stages
    from vlm_run.response import Usage as Usage
    from vlm_run.specs import Limits as Limits
    from vlm_run.specs import ModelSpec as ModelSpec
    from vlm_run.video import DynamicVideo as DynamicVideo
    from vlm_run.video import FrameSelection as FrameSelection
    from vlm_run.video import PooledVideo as PooledVideo
    from vlm_run.video import VideoFacts as VideoFacts
    from vlm_run.vision import AnyResolution as AnyResolution
    from vlm_run.vision import DynamicResolution as DynamicResolution
    from vlm_run.vision import FixedResolution as FixedResolution
    from vlm_run.vision import VisionFacts as VisionFacts

__version__ = "0.1.0"

_HOME = {
    "Adapter": "adapter",
    "AnyResolution": "vision",
    "Box": "boxes",
    "BoxCoordinates": "boxes",
    "ContextOverflowError": "errors",
    "Conversation": "prompts.conversation",
    "ConversationError": "errors",
    "Delta": "response",
    "DynamicResolution": "vision",
    "DynamicVideo": "video",
    "Engine": "engine",
    "DownloadError": "errors",
    "EngineError": "errors",
    "FixedResolution": "vision",
    "FrameSelection": "video",
    "Frames": "media.source",
    "Image": "prompts.conversation",
    "ImageSize": "boxes",
    "ImageSource": "media.source",
    "Limits": "specs",
    "MediaError": "errors",
    "MediaPolicy": "media",
    "MediaWarning": "errors",
    "Message": "prompts.conversation",
    "ModelSpec": "specs",
    "PluginError": "errors",
    "PluginWarning": "plugins.discovery",
    "PooledVideo": "video",
    "Prompt": "prompts.prompt",
    "Registry": "registry",
    "Request": "request",
    "RequestError": "errors",
    "Response": "response",
    "Sampling": "request",
    "Stages": "response",
    "TemplateError": "errors",
    "Text": "prompts.conversation",
    "UnknownModelError": "errors",
    "UnknownTokenCountError": "errors",
    "Usage": "response",
    "Video": "prompts.conversation",
    "VideoFacts": "video",
    "VisionFacts": "vision",
    "VlmRunError": "errors",
    "convert_to_base64": "media",
    "draw_boxes": "boxes",
    "hookimpl": "hookspecs",
}

__all__ = sorted(_HOME)  # noqa: PLE0605  (one list of names instead of two)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'vlm_run' has no attribute '{name}'")
    value = getattr(import_module(f"vlm_run.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
