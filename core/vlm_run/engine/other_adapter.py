"""A running model behind another adapter."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import TypeVar

from vlm_run.adapter import Adapter
from vlm_run.engine.engine import Engine
from vlm_run.engine.renderer import Renderer
from vlm_run.engine.rendering_front import RenderingFront

E = TypeVar("E", bound=Engine)


def with_adapter(engine: E, adapter: Adapter) -> E:
    """The same running model behind another adapter, to try a chat template without loading it again.

    Args:
        engine: A running engine.
        adapter: For the same checkpoint. Its engine options have no effect.

    Returns:
        An engine that lives as long as the given one; shutting down either ends both.
    """
    engine._check_running()
    other = copy(engine)
    other.adapter = adapter
    # Without the pool, whose workers render with the first adapter.
    other._pool = None
    renderer = Renderer(adapter, engine._llm.renderer, engine._policy)
    other._generator = replace(engine._generator, adapter=adapter, front=RenderingFront(renderer, None))
    return other
