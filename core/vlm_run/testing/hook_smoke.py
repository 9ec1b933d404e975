"""Calls every hook of a plugin once, to report failing hooks before a request meets them.

Used by `vlm-run plugins`. It starts no engine and imports no model library: `register_with_vllm` runs
until it first imports one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from vlm_run.errors import RequestError, VlmRunError
from vlm_run.plugins.discovery import Plugin, Plugins
from vlm_run.prompts.conversation import Conversation
from vlm_run.registry import Registry
from vlm_run.specs import ModelSpec

_HEAVY = ("vllm", "torch", "transformers")
_SIDE = 336


def failures(plugins: Plugins, plugin: Plugin) -> list[str]:
    """Error messages from calling each of the plugin's hooks once; none if all hooks work."""
    found = [fault for spec in plugin.specs for fault in _of_model(plugins, plugin, spec)]
    found += _fault_of(_register, plugins, plugin)
    return list(dict.fromkeys(found))


def remarks(plugins: Plugins, plugin: Plugin) -> list[str]:
    """Notes about a plugin: its model types without image token counts."""
    if plugins.implements("count_image_tokens", plugin):
        return []
    return [
        f"'{spec.model_type}' has no `vision`, so image tokens are not counted"
        for spec in plugin.specs
        if spec.vision is None and spec.max_images != 0
    ]


def _of_model(plugins: Plugins, plugin: Plugin, spec: ModelSpec) -> list[str]:
    from PIL import Image

    try:
        adapter = Registry.load(spec.model_type, plugins=plugins)
    except VlmRunError as error:
        return [str(error)]
    image = Image.new("RGB", (_SIDE, _SIDE))
    question = Conversation.from_query("What is this?", images=[image])
    found = [
        *_fault_of(adapter.render_prompt, question),
        *_fault_of(adapter.placeholder, 1),
        *_fault_of(adapter.preprocess_image, image),
    ]
    if spec.vision is not None or plugins.implements("count_image_tokens", plugin):
        found += _fault_of(adapter.count_image_tokens, _SIDE, _SIDE)
    return found


def _fault_of(call: Callable[..., object], *arguments: Any) -> list[str]:
    """The message of an error that a call raises, unless it refuses the request."""
    try:
        call(*arguments)
    except RequestError:
        return []
    except VlmRunError as error:
        return [str(error)]
    except (Exception, SystemExit) as error:
        return [f"{type(error).__name__}: {error}"]
    return []


def _register(plugins: Plugins, plugin: Plugin) -> None:
    with _heavy_imports_end_the_call() as ended:
        try:
            plugins.hook("register_with_vllm", plugin.module)()
        except (Exception, SystemExit) as error:
            # After a blocked import, an error says nothing about the hook in a real process.
            if not ended:
                raise VlmRunError(
                    f"the hook 'register_with_vllm' of plugin {plugin.name} failed with "
                    f"{type(error).__name__}: {error}"
                ) from error


@contextmanager
def _heavy_imports_end_the_call() -> Iterator[list[str]]:
    """Make imports of model libraries fail; yields the names of those that were attempted."""
    finder = _Wall()
    sys.meta_path.insert(0, finder)
    try:
        yield finder.tried
    finally:
        sys.meta_path.remove(finder)


class _Wall(MetaPathFinder):
    def __init__(self) -> None:
        self.tried: list[str] = []

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] in _HEAVY:
            self.tried.append(fullname)
            raise ModuleNotFoundError(f"{fullname} is not imported here", name=fullname)
        return None
