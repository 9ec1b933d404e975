"""Checks vLLM's interfaces by reading its source code, without importing it.

Reading takes under a second where importing vLLM's server takes ten, needs none of vLLM's dependencies,
and works for a wheel that is not installed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources.abc import Traversable
from typing import TypeAlias

from vlm_run.engine.vllm_seams import SEAMS, Seam

_Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


def broken_seams(package: Traversable, seams: Sequence[Seam] = SEAMS) -> list[str]:
    """The changes in a vLLM's source code that affect vlm-run, one line for each.

    Args:
        package: The directory `vllm`, on disk or in a wheel (`zipfile.Path`).
        seams: What to look for.
    """
    source = _Source(package)
    return [line for seam in seams for line in source.failures(seam)]


class _Found:
    """A definition, and the module in which its names are looked up."""

    def __init__(self, module: str, node: ast.AST) -> None:
        self.module = module
        self.node = node


class _Source:
    """vLLM's modules by their names."""

    def __init__(self, package: Traversable) -> None:
        self._package = package
        self.tree = cache(self._tree)
        self._assigned = cache(_names_assigned_to_self)

    def failures(self, seam: Seam) -> Iterator[str]:
        """The differences between a seam and what vlm-run expects."""
        place, found = self._locate(seam)
        if found is None:
            yield f"{' or '.join(seam.places)}: not found"
            return
        if seam.parameters:
            yield from (f"{place}: {fault}" for fault in self._parameter_failures(seam, found))
        for attribute in seam.attributes:
            if not any(self._member(found, name) for name in attribute.split("|")):
                yield f"{place}: no attribute {attribute.replace('|', ' or ')}"

    def _locate(self, seam: Seam) -> tuple[str, _Found | None]:
        for place in seam.places:
            module, _, path = place.partition(":")
            name, *members = path.split(".")
            found = self._name(module, name)
            for member in members:
                found = found and self._member(found, member)
            if found:
                return place, found
        return seam.places[0], None

    def _parameter_failures(self, seam: Seam, found: _Found) -> Iterator[str]:
        taken, required, takes_any = self._parameters(found)
        if not takes_any:
            for name in seam.parameters:
                if name not in taken:
                    yield f"no parameter {name}"
        for name in taken if seam.overridden else required:
            if name not in seam.parameters:
                yield f"new parameter {name}"

    def _parameters(self, found: _Found) -> tuple[list[str], list[str], bool]:
        """Names of all parameters and of the required ones, and whether any other is accepted."""
        if isinstance(found.node, ast.ClassDef):
            constructor = self._member(found, "__init__")
            if constructor is None:  # a dataclass or a struct
                return self._fields(found), [], False
            found = constructor
        if not isinstance(found.node, _Function):
            return [], [], False
        arguments = found.node.args
        positional = [each.arg for each in (*arguments.posonlyargs, *arguments.args)]
        required = positional[: len(positional) - len(arguments.defaults)]
        pairs = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        named = [(each.arg, default is None) for each, default in pairs]
        own = ("self", "cls")
        return (
            [name for name in (*positional, *(name for name, _ in named)) if name not in own],
            [name for name in (*required, *(name for name, needed in named if needed)) if name not in own],
            arguments.kwarg is not None,
        )

    def _fields(self, found: _Found) -> list[str]:
        assert isinstance(found.node, ast.ClassDef)
        own = [
            node.target.id
            for node in found.node.body
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        ]
        return [*(name for base in self._bases(found) for name in self._fields(base)), *own]

    def _name(self, module: str, name: str) -> _Found | None:
        """The definition of a name in a module; imports are followed."""
        tree = self.tree(module)
        if tree is None:
            return None
        found: _Found | None = None
        for node in _statements(tree):
            if _defines(node, name):
                found = _Found(module, node)
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        found = self._imported(module, node, alias.name) or found
        if found is None and self.tree(f"{module}.{name}") is not None:
            return _Found(f"{module}.{name}", ast.Module([], []))
        return found

    def _imported(self, module: str, node: ast.ImportFrom, name: str) -> _Found | None:
        target = node.module or ""
        if node.level:
            package = module.split(".")
            if not self._is_package(module):
                package.pop()
            package = package[: len(package) - node.level + 1]
            target = ".".join([*package, *filter(None, [target])])
        return self._name(target, name) if target.partition(".")[0] == "vllm" and target != module else None

    def _member(self, found: _Found, name: str) -> _Found | None:
        """A class's member by its body, what its methods assign to `self`, or its bases."""
        if not isinstance(found.node, ast.ClassDef):
            return None
        own = None
        for node in _statements(found.node):
            if _defines(node, name) or (isinstance(node, _Function) and name in self._assigned(node)):
                own = _Found(found.module, node)
        if own is not None:
            return own
        return next((member for base in self._bases(found) if (member := self._member(base, name))), None)

    def _bases(self, found: _Found) -> Iterator[_Found]:
        assert isinstance(found.node, ast.ClassDef)
        for base in found.node.bases:
            expression = base.value if isinstance(base, ast.Subscript) else base
            if isinstance(expression, ast.Name) and (known := self._name(found.module, expression.id)):
                yield known

    def _is_package(self, module: str) -> bool:
        return self._file(module).joinpath("__init__.py").is_file()

    def _file(self, module: str) -> Traversable:
        return self._package.joinpath(*module.split(".")[1:])

    def _tree(self, module: str) -> ast.Module | None:
        *package, name = module.split(".")[1:] or [""]
        directory = self._package.joinpath(*package) if package else self._package
        for file in (directory.joinpath(f"{name}.py"), directory.joinpath(name, "__init__.py")):
            if file.is_file():
                return ast.parse(file.read_bytes())
        return None


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """The statements of a module or a class, those under `if` and `try` included."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.If, ast.Try, ast.ExceptHandler)):
            yield from _statements(child)
        else:
            yield child


def _defines(node: ast.AST, name: str) -> bool:
    if isinstance(node, ast.ClassDef | _Function):
        return node.name == name
    if isinstance(node, ast.Assign):
        return any(isinstance(target, ast.Name) and target.id == name for target in node.targets)
    return isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name


def _names_assigned_to_self(method: _Function) -> frozenset[str]:
    return frozenset(
        node.attr
        for node in ast.walk(method)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    )
