"""Write docs/contract.md from the contract's source: python tools/contract_reference.py [--check]"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from pydantic import BaseModel

from vlm_run import BoxCoordinates, hookspecs, specs, video, vision
from vlm_run.testing import suite

TARGET = Path(__file__).parents[1] / "docs/contract.md"
MARK = "vlm_run_spec"  # where pluggy notes that a function is a hook

HEAD = f"""<!-- Written by tools/contract_reference.py from the source; change the docstrings there. -->

# The contract, version {hookspecs.CONTRACT_VERSION}

"""
CHECKS = """The checks that `vlm-run plugin check` and `vlm_run.testing.conformance_tests` run: the first ones
on the plugin, the others on each of its model types. The last ones need a checkpoint directory."""


def main() -> None:
    text = reference()
    if "--check" not in sys.argv:
        TARGET.write_text(text, encoding="utf-8")
    elif not TARGET.is_file() or TARGET.read_text(encoding="utf-8") != text:
        sys.exit(f"{TARGET} is out of date: run python tools/contract_reference.py")


def reference() -> str:
    """The whole page."""
    module_doc = inspect.getdoc(hookspecs) or ""
    sections = [HEAD + _markdown(module_doc.partition("\n\n")[2])]
    sections += ["## Hooks", *(_hook(name, function) for name, function in hooks())]
    sections += ["## Model types", *(_model(each) for each in (specs.ModelSpec, specs.Limits))]
    sections += ["## Images", _markdown((inspect.getdoc(vision) or "").partition("\n\n")[2])]
    sections += [_model(each) for each in _facts(vision)]
    sections += [
        "## Videos",
        _markdown((inspect.getdoc(video) or "").partition("\n\n")[2]),
        *map(_model, _facts(video)),
    ]
    sections += ["## Boxes", _model(BoxCoordinates)]
    sections += ["## Checks", CHECKS, _checks()]
    return "\n\n".join(sections) + "\n"


def hooks() -> Iterator[tuple[str, FunctionType]]:
    """The contract's hooks, in the order of their definition."""
    for name, function in vars(hookspecs).items():
        if inspect.isfunction(function) and hasattr(function, MARK):
            yield name, function


def signature(function: FunctionType) -> str:
    """A hook as a plugin author writes it."""
    return f"def {function.__name__}{inspect.signature(function)}".replace("'", "")


def _hook(name: str, function: FunctionType) -> str:
    options: dict[str, Any] = getattr(function, MARK)
    # A hook of which the first answer counts has a default that is asked last.
    kind = "" if options["firstresult"] or name == "register_with_vllm" else "\n\nEvery plugin must have it."
    return (
        f"### `{name}`\n\n```python\n{signature(function)}\n```\n\n"
        f"{_markdown(inspect.getdoc(function) or '')}{kind}"
    )


def _model(model: type) -> str:
    """A class of data: its docstring, and its fields with what is written below each."""
    rows = [f"| `{name}` | `{kind}` | {default} | {text} |" for name, kind, default, text in _fields(model)]
    table = "\n".join(["| Field | Type | Default | |", "|---|---|---|---|", *rows])
    doc = _markdown(inspect.getdoc(model) or "")
    return f"### `{model.__name__}`\n\n{doc}\n\n{table}"


def _fields(model: Any) -> Iterator[tuple[str, str, str, str]]:
    (tree,) = ast.parse(inspect.getsource(model)).body
    assert isinstance(tree, ast.ClassDef)
    for statement, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        name = statement.target.id
        field = model.model_fields[name]
        text = ""
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            text = _cell(str(after.value.value))
        default = "required" if field.is_required() else f"`{field.get_default(call_default_factory=True)!r}`"
        yield name, _plain(statement.annotation), default, text


def _plain(annotation: ast.expr) -> str:
    """A type without what only validates or serializes it."""
    return _cell(ast.unparse(_Plain().visit(annotation)))


class _Plain(ast.NodeTransformer):
    """Replaces `Annotated[T, …]` and `SerializeAsAny[T]` by `T`."""

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        match node:
            case ast.Subscript(ast.Name("Annotated"), ast.Tuple([kind, *_])):
                return self.visit(kind)
            case ast.Subscript(ast.Name("SerializeAsAny"), kind):
                return self.visit(kind)
        return self.generic_visit(node)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _checks() -> str:
    checks = [*suite.PLUGIN_CHECKS, *suite.MODEL_CHECKS]
    rows = [f"| `{check.__name__}` | {_cell(check.__doc__ or '')} |" for check in checks]
    return "\n".join(["| Check | Passes if |", "|---|---|", *rows])


def _facts(module: ModuleType) -> list[type]:
    """The pydantic models of a module, in the order of their definition."""
    own = [
        each
        for _, each in inspect.getmembers(module, inspect.isclass)
        if each.__module__ == module.__name__ and issubclass(each, BaseModel)
    ]
    return sorted(own, key=lambda each: inspect.getsourcelines(each)[1])


def _markdown(doc: str) -> str:
    """A docstring of the repository as Markdown: arguments as a list, examples and indented text as code."""
    return "\n\n".join(_paragraph(paragraph) for paragraph in doc.strip().split("\n\n"))


def _paragraph(paragraph: str) -> str:
    lines = paragraph.splitlines()
    if lines[0].startswith(">>>"):
        return "```pycon\n" + paragraph + "\n```"
    if lines[0] == "Args:":
        return "\n".join(re.sub(r"^    (\w+): ", r"- `\1`: ", line) for line in lines[1:])
    return paragraph


if __name__ == "__main__":
    main()
