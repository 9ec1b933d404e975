"""Checkpoint folders that a plugin's tests make for themselves."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from vlm_run.registry import Registry
from vlm_run.specs import ModelSpec
from vlm_run.testing.subject import find_plugin

if TYPE_CHECKING:
    import pytest


def checkpoint_maker(
    tmp_path_factory: pytest.TempPathFactory, write: Callable[[Path, ModelSpec], None]
) -> Callable[[str], Path]:
    """A function from a model type to its checkpoint folder, made once.

    Args:
        tmp_path_factory: pytest's fixture.
        write: What writes the folder: its path, and the model type's spec.
    """

    @cache
    def make(model_type: str) -> Path:
        folder: Path = tmp_path_factory.mktemp(model_type)
        write(folder, Registry.load(model_type).spec)
        return folder

    return make


def model_types_of(distribution: str) -> list[str]:
    """The model types that an installed plugin serves, for tests that go through all of them.

    Those that no vLLM here serves any more are left out.
    """
    specs = find_plugin(distribution).plugin.specs
    return [spec.model_type for spec in specs if spec.replaced_by is None]
