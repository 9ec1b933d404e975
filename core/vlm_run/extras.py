"""The libraries that vlm-run's extras install."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from vlm_run.errors import VlmRunError


def import_library(name: str, extra: str, use: str) -> Any:
    """Import a library of an extra.

    Args:
        name: The module.
        extra: The extra that installs it.
        use: What needs it, for the error.

    Raises:
        VlmRunError: It is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise _not_installed(name, extra, use) from error


def check_library(name: str, extra: str, use: str) -> None:
    """Check that a library of an extra is installed, without the seconds that an import may take.

    The arguments are those of `import_library`.

    Raises:
        VlmRunError: It is not.
    """
    if find_spec(name) is None:
        raise _not_installed(name, extra, use)


def _not_installed(name: str, extra: str, use: str) -> VlmRunError:
    return VlmRunError(
        f"the library {name}, needed for {use}, is not installed", hint=f"pip install 'vlm-run[{extra}]'"
    )
