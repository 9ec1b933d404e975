"""The tiny checkpoints of `architectures.py`, which is also used by tools/models_page.py."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from vlm_run.plugins.discovery import Plugins, discover


def load_architectures() -> ModuleType:
    """`architectures.py` beside this file, which is not part of a package."""
    file = Path(__file__).with_name("architectures.py")
    spec = importlib.util.spec_from_file_location("vlm_run_auto_architectures", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


ARCHITECTURES = load_architectures()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "architecture" in metafunc.fixturenames:
        metafunc.parametrize("architecture", sorted(ARCHITECTURES.ARCHITECTURES), scope="session")


@pytest.fixture(scope="session")
def architectures() -> ModuleType:
    return ARCHITECTURES


@pytest.fixture(scope="session")
def only_auto() -> Plugins:
    """The general plugin alone, as if no family's plugin were installed."""
    from vlm_run.plugins.discovery import _entry_points

    return discover(point for point in _entry_points() if point.name == "auto")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function that writes the checkpoint of an architecture, once."""

    @cache
    def make(architecture: str) -> Path:
        directory: Path = tmp_path_factory.mktemp("checkpoints") / architecture.lower()
        directory.mkdir()
        ARCHITECTURES.write_checkpoint(directory, architecture)
        return directory

    return make
