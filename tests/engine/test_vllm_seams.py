"""The installed vLLM has every interface that vlm-run uses, and another one's changes are listed."""

from __future__ import annotations

from functools import reduce
from importlib import import_module
from pathlib import Path

import pytest
import vllm

from vlm_run import Registry
from vlm_run.engine import versions, vllm_internals
from vlm_run.engine.vllm_seams import SEAMS, Seam
from vlm_run.engine.vllm_source import broken_seams
from vlm_run.errors import EngineError

INSTALLED = Path(vllm.__file__).parent


def test_the_installed_vllm_has_every_interface_with_the_parameters_that_are_used() -> None:
    failures = broken_seams(INSTALLED)
    assert not failures, f"vLLM {vllm.__version__}:\n" + "\n".join(failures)


def test_what_the_source_code_says_is_what_python_imports() -> None:
    missing = [seam.places for seam in SEAMS if not any(map(_is_there, seam.places))]
    assert not missing


def _is_there(place: str) -> bool:
    module, _, path = place.partition(":")
    try:
        reduce(getattr, path.split("."), import_module(module))
    except (ImportError, AttributeError):
        return False
    return True


@pytest.fixture
def other_vllm(tmp_path: Path) -> Path:
    """The source code of a small package that has changed."""
    package = tmp_path / "vllm"
    (package / "server").mkdir(parents=True)
    (package / "__init__.py").write_text("if True:\n    from .server.app import build as build\n")
    (package / "server" / "__init__.py").write_text("")
    (package / "server" / "base.py").write_text(
        "class Base:\n"
        "    kept: int = 0\n"
        "    def __init__(self, config, *, new): self.assigned = config\n"
        "    async def render(self, prompts, *, more=False): ...\n"
    )
    (package / "server" / "app.py").write_text(
        "from .base import Base\n"
        "from . import base as also\n"
        "def build(args, tasks=None, **others): ...\n"
        "class App(Base):\n"
        "    @property\n"
        "    def shown(self): ...\n"
        "class Options:\n"
        "    host: str\n"
    )
    return package


@pytest.mark.parametrize(
    ("seam", "failures"),
    [
        (Seam(("vllm:build",), ("args", "tasks", "anything")), []),
        (Seam(("vllm.server.gone:build", "vllm.server.app:build")), []),
        (
            Seam(("vllm.server.gone:build", "vllm:App")),
            ["vllm.server.gone:build or vllm:App: not found"],
        ),
        (Seam(("vllm.server.app:App",), attributes=("kept", "assigned", "shown", "gone|render")), []),
        (
            Seam(("vllm.server.app:App",), attributes=("_gone|_also_gone",)),
            ["vllm.server.app:App: no attribute _gone or _also_gone"],
        ),
        (Seam(("vllm.server.app:App",), ("config",)), ["vllm.server.app:App: new parameter new"]),
        (
            Seam(("vllm.server.app:App.render",), ("prompts", "cut")),
            ["vllm.server.app:App.render: no parameter cut"],
        ),
        (
            Seam(("vllm.server.app:App.render",), ("prompts",), overridden=True),
            ["vllm.server.app:App.render: new parameter more"],
        ),
        (
            Seam(("vllm.server.app:Options",), ("host", "port")),
            ["vllm.server.app:Options: no parameter port"],
        ),
        (Seam(("vllm.server:base",)), []),
    ],
)
def test_a_change_is_one_line_with_the_place(other_vllm: Path, seam: Seam, failures: list[str]) -> None:
    assert broken_seams(other_vllm, [seam]) == failures


def test_a_vllm_that_was_not_run_with_is_checked_before_it_is_used(
    monkeypatch: pytest.MonkeyPatch, other_vllm: Path
) -> None:
    spec = Registry.load("demo-llava").spec
    monkeypatch.setattr(vllm, "__version__", "0.33.9")
    versions.check_serves(spec)  # with the installed one's source code
    versions._check_interface.cache_clear()
    monkeypatch.setattr(vllm, "__file__", str(other_vllm / "__init__.py"))
    with pytest.raises(EngineError, match=r"vLLM 0\.33\.9 has changed .*: .*AsyncLLM\.generate: not found"):
        versions.check_serves(spec)


def test_a_function_that_is_nowhere_is_named_with_the_version() -> None:
    with pytest.raises(EngineError, match=rf"vLLM {versions.vllm_version()} has no vllm\.gone\.build,"):
        vllm_internals.locate(Seam(("vllm.gone:build", "vllm:build")))


def test_what_vllm_raises_for_a_bad_request_is_known() -> None:
    from vllm.exceptions import VLLMValidationError

    assert issubclass(VLLMValidationError, vllm_internals.request_errors())
    assert issubclass(ValueError, vllm_internals.request_errors())
