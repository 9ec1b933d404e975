"""`ModelType`: what is installed, as attributes and as a stub for editors."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from vlm_run import Registry
from vlm_run.plugins.discovery import installed_plugins
from vlm_run.swift.model_type import ModelType, write_stub


def stub_attributes(directory: Path) -> dict[str, str]:
    """The attributes of the stub's class, each with the string that its type allows."""
    tree = ast.parse(write_stub(directory).read_text())
    (body,) = (node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "ModelType")
    return {
        ast.unparse(node.target): ast.literal_eval(node.annotation.slice)
        for node in body
        if isinstance(node, ast.AnnAssign) and isinstance(node.annotation, ast.Subscript)
    }


def test_what_is_installed_is_an_attribute_and_in_the_stub(tmp_path: Path) -> None:
    assert ModelType.llava1_6_mistral_7b_instruct == "llava1_6-mistral-7b-instruct"
    assert ModelType.qwen2_5_vl_7b_instruct == "qwen2_5-vl-7b-instruct"
    assert ModelType.get_model_name_list() == Registry.model_types()
    attributes = stub_attributes(tmp_path)
    assert list(attributes.values()) == Registry.model_types()
    assert set(attributes) <= set(dir(ModelType))
    assert {name: getattr(ModelType, name) for name in attributes} == attributes


def test_a_plugin_that_is_installed_is_there(plugin_directory: Any, tmp_path: Path) -> None:
    with pytest.raises(AttributeError, match="vlm-run models"):
        _ = ModelType.acme_vl_7b
    before = stub_attributes(tmp_path)
    plugin_directory.add("acme_vl")
    installed_plugins.cache_clear()
    assert ModelType.acme_vl_7b == "acme-vl-7b"
    assert "acme_vl_7b" in dir(ModelType)
    assert stub_attributes(tmp_path) == {**before, "acme_vl_7b": "acme-vl-7b"}
