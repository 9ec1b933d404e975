"""Fifty plugins, each broken in a way of its own, installed beside healthy ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from vlm_run.hookspecs import CONTRACT_VERSION

HEAD = """
from vlm_run import FixedResolution, ModelSpec, hookimpl

def spec(model_type, **more):
    facts = dict(
        architecture="LlavaForConditionalGeneration",
        chat_template="acme.jinja",
        image_placeholder="<image>",
        vision=FixedResolution(image_size=336, patch_size=14),
    )
    return ModelSpec(model_type=model_type, **{**facts, **more})
"""
SPECS = """
@hookimpl
def model_specs():
    return [spec(__name__.removeprefix("vlm_run_").replace("_", "-"))]
"""
TEMPLATE = """{% for message in messages %}{% for part in message.content %}
{{- part.text if part.type == 'text' else '<image>' }}{% endfor %}{% endfor %}"""

HEALTHY = ["aardvark", "middling", "zebra"]


def specs(body: str) -> str:
    """The source of a hook `model_specs` of its own."""
    return f"{HEAD}\n@hookimpl\ndef model_specs():\n    {body}\n"


def hook(signature: str, body: str) -> str:
    """The source of a healthy plugin with one hook that is not."""
    return f"{HEAD}{SPECS}\n@hookimpl\ndef {signature}:\n    {body}\n"


# Name: (source, part of the cause).
LEFT_OUT: dict[str, tuple[str, str]] = {
    # Imports.
    "import_missing": ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
    "import_name": ("from vlm_run import NoSuchName", "ImportError: cannot import name 'NoSuchName'"),
    "import_newer": ("import vlm_run; vlm_run.no_such_name", "AttributeError"),
    "import_raises": ("1 / 0", "ZeroDivisionError: division by zero"),
    "import_exits": ("import sys; sys.exit('bye')", "SystemExit: bye"),
    "import_recurses": ("def f(): return f()\nf()", "RecursionError"),
    "import_syntax": ("def model_specs(:", "SyntaxError"),
    "import_indent": ("if True:\nx = 1", "IndentationError"),
    "import_encoding": ("# -*- coding: no-such-codec -*-", "SyntaxError"),
    "import_assert": ("assert False, 'two\\nlines'", "AssertionError: two"),
    "import_nothing": ("", "does not implement the hook 'model_specs'"),
    # Hooks that the contract has not, or not so.
    "hook_misspelt": (hook("render_promt(conversation)", "return ''"), "Did you mean 'render_prompt'"),
    "hook_misspelt_specs": (
        f"{HEAD}\n@hookimpl\ndef model_spec():\n    return []",
        "'model_spec' is not a hook of vlm_run. Did you mean 'model_specs'",
    ),
    "hook_unknown": (hook("wash_dishes()", "return ''"), "'wash_dishes' is not a hook of vlm_run"),
    "hook_argument": (
        hook("render_prompt(talk)", "return ''"),
        "the hook 'render_prompt' has no argument 'talk'. It has: model, conversation.",
    ),
    "hook_argument_misspelt": (
        hook("render_prompt(conversaton)", "return ''"),
        "the hook 'render_prompt' has no argument 'conversaton'. Did you mean 'conversation'?",
    ),
    "hook_wrapper": (
        f"{HEAD}{SPECS}\n@hookimpl(wrapper=True)\ndef render_prompt():\n    return 1",
        "render_prompt",
    ),
    "hook_undecorated": (SPECS.replace("@hookimpl", ""), "does not implement the hook 'model_specs'"),
    # Contracts.
    "contract_newer": (
        f"vlm_run_contract = '>=2'\n{HEAD}{SPECS}",
        f"contract >=2, but this vlm-run has contract {CONTRACT_VERSION}",
    ),
    "contract_older": (f"vlm_run_contract = '<1'\n{HEAD}{SPECS}", "Upgrade the plugin"),
    "contract_nonsense": (f"vlm_run_contract = 'yes'\n{HEAD}{SPECS}", "not a version range"),
    # Specs.
    "specs_raise": (specs("raise KeyError('key')"), "KeyError: 'key'"),
    "specs_none": (specs("return None"), "must return a list of ModelSpecs, not NoneType"),
    "specs_single": (specs("return spec('one')"), "must return a list of ModelSpecs, not ModelSpec"),
    "specs_strings": (specs("return ['acme-7b']"), "must return ModelSpecs, not str"),
    "specs_half_way": (specs("yield spec('half-way'); raise OSError('disk')"), "OSError: disk"),
    "specs_name": (specs("return [spec('Acme 7B')]"), "model_type"),
    "specs_field": (specs("return [spec('field', colour='red')]"), "colour"),
    "specs_type": (specs("return [spec('type', context_length='long')]"), "context_length"),
    "specs_range": (specs("return [spec('range', vllm='new')]"), "not a version range"),
    "specs_template": (specs("return [spec('template', chat_template='gone.jinja')]"), "gone.jinja"),
    "specs_checkpoint": (specs("return [spec('checkpoint', checkpoint='gone')]"), "does not exist"),
    # Model types that are taken.
    "taken": (specs("return [spec('aardvark')]"), "'aardvark' is already served by vlm-run-aardvark"),
    "taken_one_of_two": (specs("return [spec('free'), spec('aardvark')]"), "is already served by"),
    "taken_by_itself": (specs("return [spec('twin-a'), spec('twin_a')]"), "by vlm-run-taken-by-itself"),
    "taken_spelt_otherwise": (specs("return [spec('import_ant'), spec('import-ant')]"), "'import-ant' is"),
}
FAILING: dict[str, tuple[str, str]] = {
    "fails_render": (hook("render_prompt()", "raise ValueError('no')"), "'render_prompt' of plugin"),
    "fails_preprocess": (hook("preprocess_image()", "raise ValueError('no')"), "'preprocess_image' of"),
    "fails_placeholder": (hook("placeholder()", "raise ValueError('no')"), "'placeholder' of plugin"),
    "fails_count": (hook("count_image_tokens()", "raise ValueError('no')"), "'count_image_tokens' of plugin"),
    "fails_engine": (hook("engine_kwargs()", "raise ValueError('no')"), "'engine_kwargs' of plugin"),
    "fails_register": (hook("register_with_vllm()", "raise ValueError('no')"), "'register_with_vllm' of"),
    "fails_exit": (hook("engine_kwargs()", "raise SystemExit(3)"), "SystemExit: 3"),
    "returns_render": (hook("render_prompt()", "return 1"), "returned int, not str"),
    "returns_preprocess": (hook("preprocess_image()", "return 'image'"), "returned str, not Image"),
    "returns_placeholder": (hook("placeholder()", "return 7"), "returned int, not str"),
    "returns_count": (hook("count_image_tokens()", "return 1.5"), "returned float, not int"),
    "returns_engine": (hook("engine_kwargs()", "return ['max_model_len']"), "returned list, not Mapping"),
    "template_broken": (f"{HEAD}{SPECS}".replace("acme.jinja", "broken.jinja"), "broken.jinja failed"),
}
SLOW: dict[str, tuple[str, str]] = {
    "slow_import": (f"import time; time.sleep(2.1)\n{HEAD}{SPECS}", "its import takes 2."),
    "slow_and_broken": ("import time; time.sleep(0.5)\n1 / 0", "ZeroDivisionError"),
}
STATUS = {
    **dict.fromkeys(LEFT_OUT, "broken"),
    **dict.fromkeys(FAILING, "failing"),
    "slow_import": "slow",
    "slow_and_broken": "broken",
}
BROKEN = {**LEFT_OUT, **FAILING, **SLOW}

LOAD = """
import json, sys, warnings
from vlm_run import Conversation, Registry
warnings.simplefilter("ignore")
question = Conversation.from_query("What?", images=["image.png"])
found = {}
for name in Registry.model_types():
    try:
        adapter = Registry.load(name)
        found[name] = [adapter.render_prompt(question).text, adapter.count_image_tokens(336, 336)]
    except Exception as error:
        found[name] = str(error)
json.dump(found, sys.stdout)
"""


def _install(directory: Path, name: str, source: str) -> None:
    package = directory / f"vlm_run_{name}"
    package.mkdir()
    (package / "__init__.py").write_text(dedent(source))
    (package / "acme.jinja").write_text(TEMPLATE)
    (package / "broken.jinja").write_text("{% for %}")
    info = directory / f"vlm_run_{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vlm-run-{name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[vlm_run.plugins]\n{name} = vlm_run_{name}\n")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `vlm-run plugins --json`, and loading every model type, say of all of them together."""
    directory = tmp_path_factory.mktemp("installed")
    for name in HEALTHY:
        _install(directory, name, f"{HEAD}{SPECS}print('what a plugin prints is no JSON')\n")
    for name, (source, _) in BROKEN.items():
        _install(directory, name, source)
    environment = {**os.environ, "PYTHONPATH": str(directory)}
    programs = {
        "plugins": "import sys; sys.argv[1:] = ['plugins', '--json']; from vlm_run.cli import main; main()",
        "models": LOAD,
    }
    running = {
        name: subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE)
        for name, program in programs.items()
    }
    return {name: json.loads(process.communicate()[0]) for name, process in running.items()}


def test_there_are_fifty_or_more() -> None:
    assert len(BROKEN) >= 50


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_model_type_loads_and_renders(name: str, found: dict[str, Any]) -> None:
    assert found["models"][name] == ["<image>What?", 576]


def test_those_of_the_environment_load_too(found: dict[str, Any]) -> None:
    assert found["models"]["llava1_5-7b-instruct"][1] == 576


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_named_with_its_cause(name: str, found: dict[str, Any]) -> None:
    distribution = f"vlm-run-{name}".replace("_", "-")
    rows = [row for row in found["plugins"] if row["plugin"] == distribution and row["cause"]]
    assert [row["status"] for row in rows] == [STATUS[name]]
    assert BROKEN[name][1] in rows[0]["cause"]


@pytest.mark.parametrize("name", [f"vlm-run-{name}" for name in HEALTHY])
def test_a_healthy_plugin_is_ok(name: str, found: dict[str, Any]) -> None:
    (row,) = [row for row in found["plugins"] if row["plugin"] == name]
    assert (row["status"], row["cause"]) == ("ok", None)


@pytest.mark.parametrize("name", ["fails_count", "fails_placeholder", "slow_import"])
def test_what_still_works_of_a_failing_plugin_works(name: str, found: dict[str, Any]) -> None:
    answer = found["models"][name.replace("_", "-")]
    assert answer == ["<image>What?", 576] or "'count_image_tokens' of plugin vlm-run-fails-count" in answer
