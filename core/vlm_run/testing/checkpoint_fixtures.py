"""Checkpoint directories that a plugin's tests write."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
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

    Model types that differ in their weights only, which no directory has, share one: what vLLM and
    transformers make of it needs to be found out once.

    Args:
        tmp_path_factory: pytest's fixture.
        write: Writes the checkpoint, given its directory and the model type's spec.
    """

    written: dict[str, Path] = {}

    @cache
    def make(model_type: str) -> Path:
        directory: Path = tmp_path_factory.mktemp(model_type)
        write(directory, Registry.load(model_type).spec)
        return written.setdefault(_digest(directory), directory)

    return make


def _digest(directory: Path) -> str:
    """The same for directories with the same files."""
    digest = hashlib.sha256()
    for file in sorted(path for path in directory.rglob("*") if path.is_file()):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(directory)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def checkpoint_fixtures(
    write: Callable[[Path, ModelSpec], None], model_types: str | Sequence[str]
) -> tuple[Callable[..., Callable[[str], Path]], Callable[..., dict[str, Path]]]:
    """The fixtures `checkpoint` and `vlm_run_checkpoints`, for a plugin's conftest.py.

        checkpoint, vlm_run_checkpoints = checkpoint_fixtures(write, "vlm-run-acme-vl")

    `checkpoint` is a function from a model type to its checkpoint directory; `vlm_run_checkpoints` gives the
    conformance suite the directories.

    Args:
        write: Writes the checkpoint, given its directory and the model type's spec.
        model_types: The model types to test with a checkpoint, or the distribution, for all that it serves.
    """
    import pytest

    @pytest.fixture(scope="session")
    def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
        return checkpoint_maker(tmp_path_factory, write)

    @pytest.fixture(scope="session")
    def vlm_run_checkpoints(checkpoint: Callable[[str], Path]) -> dict[str, Path]:
        names = model_types_of(model_types) if isinstance(model_types, str) else model_types
        return {name: checkpoint(name) for name in names}

    return checkpoint, vlm_run_checkpoints


def model_types_of(distribution: str) -> list[str]:
    """The model types that an installed plugin serves, for tests that run on each of them.

    Model types that no supported vLLM version serves any more are omitted.
    """
    specs = find_plugin(distribution).plugin.specs
    return [spec.model_type for spec in specs if spec.replaced_by is None]
