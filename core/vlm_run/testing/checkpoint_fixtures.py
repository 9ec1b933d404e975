"""Checkpoint directories that a plugin's tests write."""

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
    """A function from a model type to its checkpoint directory, which is written once.

    Args:
        tmp_path_factory: pytest's fixture.
        write: Writes the checkpoint, given its directory and the model type's spec.
    """

    @cache
    def make(model_type: str) -> Path:
        directory: Path = tmp_path_factory.mktemp(model_type)
        write(directory, Registry.load(model_type).spec)
        return directory

    return make


def model_types_of(distribution: str) -> list[str]:
    """The model types that an installed plugin serves, for tests that run on each of them.

    Model types that no supported vLLM version serves any more are omitted.
    """
    specs = find_plugin(distribution).plugin.specs
    return [spec.model_type for spec in specs if spec.replaced_by is None]
