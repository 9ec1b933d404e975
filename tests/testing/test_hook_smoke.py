"""The trial of a plugin's hooks: what it follows, where it ends, and whom it blames."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import entrypoints
import pytest

from vlm_run.plugins.discovery import Plugins, discover
from vlm_run.testing.hook_smoke import failures, remarks

SOURCE = """
from vlm_run import ModelSpec, hookimpl
from vlm_run.errors import MediaError, TemplateError

@hookimpl
def model_specs():
    name = __name__.replace("_", "-")
    return [
        ModelSpec(model_type=name, architecture="A", chat_template="t.jinja", image_placeholder="<image>")
    ]
"""
TEMPLATE = "{% for part in messages[0].content %}{{ part.text or '<image>' }}{% endfor %}"
_numbers = itertools.count(1)


@pytest.fixture
def discovered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Plugins]:
    """A function that discovers plugins, each given by what stands beside its `model_specs`."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(*bodies: str) -> Plugins:
        points = []
        for body in bodies:
            module = f"trial_{next(_numbers):02}"
            (tmp_path / module).mkdir()
            (tmp_path / module / "__init__.py").write_text(SOURCE + dedent(body))
            (tmp_path / module / "t.jinja").write_text(TEMPLATE)
            points.append(
                entrypoints.EntryPoint(module, module, None, distro=entrypoints.Distribution(module, "1"))
            )
        plugins = discover(points)
        assert not plugins.broken
        return plugins

    return make


def test_a_model_type_whose_image_tokens_nobody_counts_is_reported(
    discovered: Callable[..., Plugins],
) -> None:
    plugins = discovered("", "@hookimpl\ndef count_image_tokens():\n    return 1")
    without, counting = plugins.healthy
    assert remarks(plugins, without) == [
        f"'{without.specs[0].model_type}' has no `vision`, so image tokens are not counted"
    ]
    assert remarks(plugins, counting) == []


def test_a_healthy_plugin_has_no_faults(discovered: Callable[..., Plugins]) -> None:
    plugins = discovered("")
    assert failures(plugins, plugins.healthy[0]) == []


def test_each_fault_is_told_once(discovered: Callable[..., Plugins]) -> None:
    plugins = discovered("""
        @hookimpl
        def preprocess_image():
            raise ValueError("one")
        @hookimpl
        def register_with_vllm():
            raise ValueError("two")
    """)
    one, two = failures(plugins, plugins.healthy[0])
    assert "'preprocess_image'" in one
    assert "ValueError: one" in one
    assert "'register_with_vllm'" in two
    assert "ValueError: two" in two


def test_a_refusal_is_not_a_failure(discovered: Callable[..., Plugins]) -> None:
    plugins = discovered("""
        @hookimpl
        def preprocess_image():
            raise MediaError("too small")
        @hookimpl
        def render_prompt():
            raise TemplateError("no images")
    """)
    assert failures(plugins, plugins.healthy[0]) == []


@pytest.mark.parametrize(
    "body",
    [
        "from vllm import ModelRegistry\n    raise ValueError('not reached')",
        "import torch.nn\n    raise ValueError('not reached')",
        "try:\n        import transformers\n    except ImportError:\n        raise RuntimeError('needs it')",
    ],
)
def test_registration_is_followed_as_far_as_a_model_library(
    body: str, discovered: Callable[..., Plugins], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in ("vllm", "torch", "transformers")]:
        monkeypatch.delitem(sys.modules, name)
    plugins = discovered(f"\n@hookimpl\ndef register_with_vllm():\n    {body}\n")
    meta_path = list(sys.meta_path)
    assert failures(plugins, plugins.healthy[0]) == []
    assert sys.meta_path == meta_path
    assert "vllm" not in sys.modules


def test_the_plugin_whose_wrapper_raises_is_the_one_that_is_named(
    discovered: Callable[..., Plugins],
) -> None:
    plugins = discovered(
        "",
        """
        @hookimpl(wrapper=True)
        def placeholder():
            yield
            raise ValueError("wrapped")
        """,
    )
    innocent, guilty = plugins.healthy
    (fault,) = failures(plugins, innocent)
    assert f"of plugin {guilty.name} failed with ValueError: wrapped" in fault
