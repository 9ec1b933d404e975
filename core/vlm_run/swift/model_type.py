"""Model types as attributes of a class, as ms-swift has them."""

from __future__ import annotations

from pathlib import Path

from vlm_run.registry import Registry

__all__ = ["ModelType", "write_stub"]

_STUB = """\
# Written by `vlm-run models --stub` for the installed plugins; run it again after installing others.
from typing import Literal

class _ModelTypes(type):
    def __getattr__(cls, name: str) -> str: ...

class ModelType(metaclass=_ModelTypes):
{attributes}
    @classmethod
    def get_model_name_list(cls) -> list[str]: ...
"""


class _ModelTypes(type):
    """Looks up model types on access, so that those of newly installed plugins are found."""

    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return _model_types()[name]
        except KeyError:
            raise AttributeError(
                f"no installed plugin serves ModelType.{name}; `vlm-run models` lists all", name=name, obj=cls
            ) from None

    def __dir__(cls) -> list[str]:
        return [*super().__dir__(), *_model_types()]


class ModelType(metaclass=_ModelTypes):
    """The model types of all installed plugins as attributes, each a string.

    IPython, Jupyter and `dir` list them. For editors that only read source code, `vlm-run models --stub`
    writes a stub file.

    >>> ModelType.demo_llava
    'demo-llava'
    """

    @classmethod
    def get_model_name_list(cls) -> list[str]:
        """Return all model types, sorted."""
        return Registry.model_types()


def write_stub(directory: Path) -> Path:
    """Write a stub file of `ModelType` for editors and type checkers.

    Args:
        directory: Where they look for stub files.

    Returns:
        The file, `vlm_run/model_type.pyi` in the directory.
    """
    file = directory / "vlm_run" / "model_type.pyi"
    file.parent.mkdir(parents=True, exist_ok=True)
    attributes = [f'    {name}: Literal["{value}"]\n' for name, value in _model_types().items()]
    file.write_text(_STUB.format(attributes="".join(attributes)), encoding="utf-8")
    return file


def _model_types() -> dict[str, str]:
    return {_identifier(name): name for name in Registry.model_types()}


def _identifier(model_type: str) -> str:
    return model_type.replace("-", "_").replace(".", "_")
