"""The hook `spec_from_checkpoint`: which plugin answers for a checkpoint that no model type fits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vlm_run import PluginWarning, Registry, UnknownModelError

HOOK = """
@hookimpl{options}
def spec_from_checkpoint(config, folder):
    {body}
"""
DERIVED = (
    "return spec('derived-by-{name}', chat_template='acme.jinja', derived_from={{'architecture': '{name}'}})"
)


@pytest.fixture
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory: Path = tmp_path_factory.mktemp("checkpoint")
    config = {"architectures": ["NewForConditionalGeneration"], "vision_config": {}}
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def _hook(body: str, options: str = "") -> str:
    return HOOK.format(body=body, options=options)


def test_a_familys_plugin_is_asked_before_a_general_one(plugin_directory: Any, checkpoint: Path) -> None:
    plugin_directory.add("a_general", _hook(DERIVED.format(name="general"), "(trylast=True)"))
    plugin_directory.add("family", _hook(DERIVED.format(name="family")))
    adapter = Registry.load(checkpoint, plugins=plugin_directory.discover())
    assert adapter.spec.model_type == "derived-by-family"
    assert adapter.plugin.name == "vlm-run-family"
    assert adapter.source == str(checkpoint)


def test_a_plugin_that_returns_none_passes_the_checkpoint_on(plugin_directory: Any, checkpoint: Path) -> None:
    plugin_directory.add("a_general", _hook(DERIVED.format(name="general"), "(trylast=True)"))
    plugin_directory.add("family", _hook("return None"))
    assert Registry.load(checkpoint, plugins=plugin_directory.discover()).plugin.name == "vlm-run-a-general"


def test_a_listed_model_type_that_fits_is_preferred(plugin_directory: Any, checkpoint: Path) -> None:
    plugin_directory.add("family", _hook(DERIVED.format(name="family")))
    (checkpoint / "config.json").write_text(json.dumps({"architectures": ["LlavaForConditionalGeneration"]}))
    plugins = plugin_directory.discover()
    listed = [spec for spec, _ in plugins.models()]
    (checkpoint / "config.json").write_text(json.dumps({"architectures": [listed[0].architecture]}))
    assert Registry.load(checkpoint, plugins=plugins).spec.model_type == listed[0].model_type


def test_a_plugin_whose_hook_fails_does_not_stop_the_others(plugin_directory: Any, checkpoint: Path) -> None:
    plugin_directory.add("a_general", _hook(DERIVED.format(name="general"), "(trylast=True)"))
    plugin_directory.add("family", _hook("raise KeyError('rope')"))
    with pytest.warns(PluginWarning, match="vlm-run-family: the hook 'spec_from_checkpoint' failed"):
        adapter = Registry.load(checkpoint, plugins=plugin_directory.discover())
    assert adapter.plugin.name == "vlm-run-a-general"


def test_without_an_answer_the_architecture_is_named(plugin_directory: Any, checkpoint: Path) -> None:
    plugin_directory.add("family")
    with pytest.raises(UnknownModelError, match=r"NewForConditionalGeneration.* vlm-run-auto"):
        Registry.load(checkpoint, plugins=plugin_directory.discover())
