"""Plugins, installed for real: what is healthy works, what is broken is named with its cause."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from vlm_run import Conversation, PluginWarning, Registry
from vlm_run.errors import MediaError, PluginError
from vlm_run.plugins.discovery import Plugins, installed_plugins

QUESTION = Conversation.from_query("How many?")


def _names(plugins: Plugins) -> list[str]:
    return [plugin.name for plugin in plugins.healthy]


def _causes(plugins: Plugins) -> dict[str, str]:
    return {plugin.name: plugin.cause for plugin in plugins.broken}


def _command(*arguments: str, path: Path) -> Any:
    """What `vlm-run … --json` prints with the plugins below `path` installed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "from vlm_run.cli import main; main()", *arguments, "--json"],
        env={**os.environ, "PYTHONPATH": str(path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return json.loads(done.stdout)


# --- What is healthy


def test_no_plugin_is_not_an_error(plugin_directory: Any) -> None:
    plugins = plugin_directory.discover()
    assert (plugins.healthy, plugins.broken) == ([], [])


@pytest.mark.parametrize(
    "content",
    ["tool = tool:main", "[console_scripts]\ntool = tool:main\ntool = tool:other"],
    ids=["no section", "the same name twice"],
)
def test_a_malformed_file_of_another_distribution_hides_no_plugin(
    plugin_directory: Any, tmp_path: Path, content: str
) -> None:
    plugin_directory.add("acme")
    info = tmp_path / "stranger-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(content)
    plugins = installed_plugins()
    assert {"vlm-run-acme", "vlm-run-llava"} <= set(_names(plugins))
    assert plugins.broken == []


def test_a_plugin_is_found_by_its_entry_point(plugin_directory: Any) -> None:
    plugin_directory.add("acme", version="2.5")
    plugins = plugin_directory.discover()
    ((spec, plugin),) = plugins.models()
    assert (plugin.name, plugin.version) == ("vlm-run-acme", "2.5")
    assert spec.model_type == "acme-7b"
    assert plugins.broken == []


def test_a_spec_is_listed_under_the_plugins_name_and_its_template_is_beside_the_module(
    plugin_directory: Any,
) -> None:
    plugin_directory.add("acme")
    ((spec, _),) = plugin_directory.discover().models()
    assert spec.family == "acme"
    assert spec.chat_template == str(plugin_directory.path / "vlm_run_acme" / "acme.jinja")


def test_plugins_come_in_the_order_of_their_distributions(plugin_directory: Any) -> None:
    for name in ("zebra", "acme", "moose"):
        plugin_directory.add(name)
    assert _names(plugin_directory.discover()) == ["vlm-run-acme", "vlm-run-moose", "vlm-run-zebra"]


def test_the_environments_plugins_are_found_once(plugin_directory: Any) -> None:
    plugin_directory.add("acme")
    plugins = installed_plugins()
    assert "vlm-run-acme" in _names(plugins)
    plugin_directory.add("late")
    assert installed_plugins() is plugins


# --- What is broken

BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "a missing import": (
        {"body": "import a_library_that_is_not_there"},
        "ModuleNotFoundError: No module named 'a_library_that_is_not_there'",
    ),
    "a syntax error": ({"body": "def ("}, "SyntaxError: "),
    "a module that exits": ({"body": "raise SystemExit('not on this machine')"}, "not on this machine"),
    "a misspelt hook": (
        {"body": "@hookimpl\ndef render_promt(model): return 'Hi'", "serves": ("broken-7b",)},
        "'render_promt' is not a hook of vlm_run. Did you mean 'render_prompt'?",
    ),
    "a hook of no kind": (
        {"body": "@hookimpl\ndef xyzzy(): pass", "serves": ("broken-7b",)},
        "'xyzzy' is not a hook of vlm_run",
    ),
    "an argument that the hook does not have": (
        {"body": "@hookimpl\ndef placeholder(number): return '<image>'", "serves": ("broken-7b",)},
        "'number'",
    ),
    "no model_specs": ({"serves": None, "body": "# model_specs is missing"}, "does not implement the hook"),
    "model_specs that raises": (
        {"body": "@hookimpl\ndef model_specs(): raise LookupError('where is it?')"},
        "LookupError: where is it?",
    ),
    "model_specs that returns nothing": (
        {"body": "@hookimpl\ndef model_specs(): pass"},
        "'model_specs' must return a list of ModelSpecs, not NoneType",
    ),
    "model_specs that returns a number": (
        {"body": "@hookimpl\ndef model_specs(): return 7"},
        "'model_specs' must return a list of ModelSpecs, not int",
    ),
    "model_specs that returns one spec": (
        {"body": "@hookimpl\ndef model_specs(): return spec('broken-7b')"},
        "'model_specs' must return a list of ModelSpecs, not ModelSpec",
    ),
    "model_specs that returns names": (
        {"body": "@hookimpl\ndef model_specs(): return ['broken-7b']"},
        "'model_specs' must return ModelSpecs, not str",
    ),
    "an invalid spec": (
        {"body": "@hookimpl\ndef model_specs(): return [spec('Broken 7B')]"},
        "ModelSpec is invalid: model_type: Value error, must be lower-case letters and digits",
    ),
    "a template that is not there": (
        {"body": "@hookimpl\ndef model_specs(): return [spec('broken-7b', chat_template='other.jinja')]"},
        "other.jinja does not exist",
    ),
    "a checkpoint that is not there": (
        {"body": "@hookimpl\ndef model_specs(): return [spec('broken-7b', checkpoint='weights')]"},
        "weights does not exist",
    ),
}


@pytest.mark.parametrize(("plugin", "cause"), BROKEN.values(), ids=BROKEN)
def test_a_broken_plugin_is_named_with_its_cause_and_stops_no_other(
    plugin: dict[str, Any], cause: str, plugin_directory: Any
) -> None:
    plugin_directory.add("broken", **plugin)
    for healthy in ("acme", "zebra"):
        plugin_directory.add(healthy)
    plugins = plugin_directory.discover()
    assert _names(plugins) == ["vlm-run-acme", "vlm-run-zebra"]
    assert cause in _causes(plugins)["vlm-run-broken"]
    for model_type in ("acme-7b", "zebra-7b"):
        assert Registry.load(model_type, plugins=plugins).render_prompt(QUESTION).text == "user: How many?\n"


def test_a_model_type_stays_with_the_plugin_that_sorts_first(plugin_directory: Any) -> None:
    plugin_directory.add("second", serves=("shared_7b", "second-7b"))
    plugin_directory.add("first", serves=("shared-7b",))
    plugins = plugin_directory.discover()
    assert [(spec.model_type, plugin.name) for spec, plugin in plugins.models()] == [
        ("shared-7b", "vlm-run-first"),
        ("second-7b", "vlm-run-second"),
    ]
    assert _causes(plugins) == {"vlm-run-second": "model type 'shared_7b' is already served by vlm-run-first"}


def test_a_model_type_that_one_plugin_serves_twice_is_served_once(plugin_directory: Any) -> None:
    plugin_directory.add("acme", serves=("acme-7b", "acme_7b"))
    plugins = plugin_directory.discover()
    assert [spec.model_type for spec, _ in plugins.models()] == ["acme-7b"]
    assert _causes(plugins) == {"vlm-run-acme": "model type 'acme_7b' is already served by vlm-run-acme"}


def test_a_warning_is_given_once_for_each_broken_plugin(plugin_directory: Any) -> None:
    plugin_directory.add("broken", "import a_library_that_is_not_there")
    plugin_directory.add("acme", serves=())
    with pytest.warns(PluginWarning) as caught:
        installed_plugins()
    (warning,) = caught
    assert str(warning.message).startswith("plugin vlm-run-broken: ModuleNotFoundError: ")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        installed_plugins()
        Registry.model_types()


# --- Whose hook is called


def test_a_familys_hook_is_called_for_its_own_models_alone(plugin_directory: Any) -> None:
    plugin_directory.add("acme", "@hookimpl\ndef render_prompt(): return 'ACME'")
    plugin_directory.add("moose", "@hookimpl\ndef render_prompt(): return 'MOOSE'")
    plugin_directory.add("zebra")
    plugins = plugin_directory.discover()
    prompts = {
        model_type: Registry.load(model_type, plugins=plugins).render_prompt(QUESTION).text
        for model_type in Registry.model_types(plugins)
    }
    assert prompts == {"acme-7b": "ACME", "moose-7b": "MOOSE", "zebra-7b": "user: How many?\n"}


def test_a_hook_that_returns_none_leaves_it_to_the_default(plugin_directory: Any) -> None:
    plugin_directory.add(
        "acme",
        """
        @hookimpl
        def placeholder(index):
            return "<first>" if index == 1 else None
        """,
    )
    adapter = Registry.load("acme-7b", plugins=plugin_directory.discover())
    assert (adapter.placeholder(1), adapter.placeholder(2)) == ("<first>", "<image>")


@pytest.mark.parametrize(
    "wrapper",
    [
        """
        @hookimpl(wrapper=True)
        def placeholder(model):
            return f"{model.model_type}:{(yield)}"
        """,
        """
        @hookimpl(hookwrapper=True)
        def placeholder(model):
            outcome = yield
            outcome.force_result(f"{model.model_type}:{outcome.get_result()}")
        """,
    ],
    ids=["wrapper", "old-style wrapper"],
)
def test_a_wrapper_is_called_around_every_familys_hook(wrapper: str, plugin_directory: Any) -> None:
    plugin_directory.add("around", wrapper)
    plugin_directory.add("acme", "@hookimpl\ndef placeholder(): return '<acme>'")
    plugin_directory.add("zebra")
    plugins = plugin_directory.discover()
    placeholders = [Registry.load(name, plugins=plugins).placeholder() for name in ("acme-7b", "zebra-7b")]
    assert placeholders == ["acme-7b:<acme>", "zebra-7b:<image>"]


def test_a_hook_that_raises_is_its_plugins_fault_and_stops_no_other(plugin_directory: Any) -> None:
    plugin_directory.add("acme", "@hookimpl\ndef count_image_tokens(width, height): return width // 0")
    plugin_directory.add("zebra", "@hookimpl\ndef count_image_tokens(width, height): return 9")
    plugins = plugin_directory.discover()
    with pytest.raises(PluginError) as caught:
        Registry.load("acme-7b", plugins=plugins).count_image_tokens(8, 8)
    assert str(caught.value).startswith(
        "the hook 'count_image_tokens' of plugin vlm-run-acme failed with ZeroDivisionError: "
    )
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert Registry.load("zebra-7b", plugins=plugins).count_image_tokens(8, 8) == 9


def test_a_hook_may_refuse_one_request(plugin_directory: Any) -> None:
    plugin_directory.add("acme", "@hookimpl\ndef preprocess_image(): raise MediaError('it is upside down')")
    from PIL import Image

    with pytest.raises(MediaError, match="it is upside down"):
        Registry.load("acme-7b", plugins=plugin_directory.discover()).preprocess_image(
            Image.new("RGB", (8, 8))
        )


# --- Through the command line


def test_the_command_lists_each_plugin_with_its_cause(plugin_directory: Any) -> None:
    plugin_directory.add("acme", version="2.5")
    plugin_directory.add("broken", "import a_library_that_is_not_there")
    plugin_directory.add("misspelt", "@hookimpl\ndef placehodler(): return '<image>'")
    rows = {row["plugin"]: row for row in _command("plugins", path=plugin_directory.path)}
    assert rows["vlm-run-acme"] == {
        "plugin": "vlm-run-acme",
        "version": "2.5",
        "status": "ok",
        "model_types": ["acme-7b"],
        "cause": "'acme-7b' has no `vision`, so image tokens are not counted",
    }
    assert rows["vlm-run-broken"] == {
        "plugin": "vlm-run-broken",
        "version": "1.0",
        "status": "broken",
        "model_types": [],
        "cause": "ModuleNotFoundError: No module named 'a_library_that_is_not_there'",
    }
    assert rows["vlm-run-misspelt"]["cause"] == (
        "'placehodler' is not a hook of vlm_run. Did you mean 'placeholder'?"
    )


def test_pip_installing_a_directory_adds_its_model_types_and_removing_it_removes_them(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "vlm_run_moose").mkdir(parents=True)
    (source / "vlm_run_moose" / "moose.jinja").write_text("{{ messages[0].content[0].text }}")
    (source / "vlm_run_moose" / "__init__.py").write_text(
        dedent("""
            from vlm_run import ModelSpec, hookimpl

            @hookimpl
            def model_specs():
                return [
                    ModelSpec(
                        model_type="moose-vl-7b",
                        hf_id="moose/vl-7b",
                        architecture="MooseForCausalLM",
                        chat_template="moose.jinja",
                        image_placeholder="<image>",
                    )
                ]
        """)
    )
    (source / "pyproject.toml").write_text(
        dedent("""
            [build-system]
            requires = ["setuptools>=77"]
            build-backend = "setuptools.build_meta"

            [project]
            name = "vlm-run-moose"
            version = "0.3"

            [project.entry-points."vlm_run.plugins"]
            moose = "vlm_run_moose"

            [tool.setuptools]
            packages = ["vlm_run_moose"]
            package-data = { vlm_run_moose = ["*.jinja"] }
        """)
    )
    without = _command("models", path=target)
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    subprocess.run([*install, "--target", str(target), str(source)], check=True, capture_output=True)
    added = [row for row in _command("models", path=target) if row not in without]
    assert [(row["model_type"], row["plugin"], row["hf_id"]) for row in added] == [
        ("moose-vl-7b", "vlm-run-moose", "moose/vl-7b")
    ]
    # `pip uninstall` knows no --target: take away what its RECORD lists.
    (record,) = target.glob("*.dist-info/RECORD")
    for line in record.read_text().splitlines():
        (target / line.split(",")[0]).unlink(missing_ok=True)
    assert _command("models", path=target) == without
