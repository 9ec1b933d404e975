"""Temporary plugins for one test: a package and its entry point in a directory on `sys.path`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import entrypoints
import pytest

from vlm_run.plugins import cpu_dtype
from vlm_run.plugins.discovery import GROUP, Plugins, discover, installed_plugins

HEAD = """
from vlm_run import ModelSpec, hookimpl
from vlm_run.errors import MediaError

def spec(model_type, **more):
    facts = {
        "model_type": model_type,
        "architecture": "AcmeForCausalLM",
        "chat_template": "acme.jinja",
        "image_placeholder": "<image>",
    }
    return ModelSpec(**{**facts, **more})
"""
TEMPLATE = """
{%- for message in messages -%}
    {{- message.role + ': ' -}}
    {%- for part in message.content -%}
        {{- part.text if part.type == 'text' else '<image>' -}}
    {%- endfor -%}
    {{- '\n' -}}
{%- endfor -%}
"""


class PluginDirectory:
    """A directory of installed plugins."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(
        self, name: str, body: str = "", *, serves: tuple[str, ...] | None = None, version: str = "1.0"
    ) -> None:
        """Install the distribution `vlm-run-NAME`.

        Args:
            name: Name of the plugin.
            body: Python source of its module, after the imports and `spec` that every module has.
            serves: Model types for which it implements `model_specs`; by default one, `NAME-7b`,
                unless the body implements it.
            version: Version of the distribution.
        """
        if serves is None and "model_specs" not in body:
            serves = (f"{name.replace('_', '-')}-7b",)
        hook = f"""
@hookimpl
def model_specs():
    return [spec(model_type) for model_type in {serves!r}]
"""
        package = self.path / f"vlm_run_{name}"
        package.mkdir()
        (package / "acme.jinja").write_text(TEMPLATE)
        (package / "__init__.py").write_text(HEAD + (hook if serves is not None else "") + dedent(body))
        info = self.path / f"vlm_run_{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vlm-run-{name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{name} = vlm_run_{name}\n")

    def discover(self) -> Plugins:
        """Only the plugins of this directory."""
        return discover(entrypoints.get_group_all(GROUP, path=[str(self.path)]))


@pytest.fixture
def bfloat16_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU for which vlm-run sets no dtype, whatever the machine has."""
    monkeypatch.setattr(cpu_dtype, "cpu_flags", lambda: frozenset({"avx512_bf16"}))


@pytest.fixture
def plugin_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PluginDirectory]:
    """An empty directory on `sys.path`; modules imported from it are removed afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    installed_plugins.cache_clear()
    yield PluginDirectory(tmp_path)
    installed_plugins.cache_clear()
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
