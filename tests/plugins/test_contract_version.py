"""Plugins that say which version of the contract they were written for."""

from __future__ import annotations

from pathlib import Path

import entrypoints
import pytest

from vlm_run.plugins.discovery import Plugins, discover

PLUGIN = """
from vlm_run import ModelSpec, hookimpl

vlm_run_contract = {stated!r}

@hookimpl
def model_specs():
    return [ModelSpec(model_type="a", architecture="A", chat_template="__init__.py", image_placeholder="<i>")]
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))


def discovered(directory: Path, name: str, source: str) -> Plugins:
    (directory / name).mkdir()
    (directory / name / "__init__.py").write_text(source)
    return discover([entrypoints.EntryPoint("it", name, None, distro=entrypoints.Distribution(name, "1"))])


@pytest.mark.parametrize("stated", [None, ">=1", ">=1,<2", "==1.*", "~=1.0", "==1.3"])
def test_a_plugin_for_this_contract_is_used(stated: str | None, tmp_path: Path) -> None:
    found = discovered(tmp_path, f"fits_{abs(hash(stated))}", PLUGIN.format(stated=stated))
    assert [plugin.specs[0].model_type for plugin in found.healthy] == ["a"]


@pytest.mark.parametrize(
    ("stated", "advice"),
    [
        (">=2,<3", "Upgrade vlm-run."),
        (">=1.4", "Upgrade vlm-run."),
        ("==2.*", "Upgrade vlm-run."),
        ("<1", "Upgrade the plugin."),
    ],
)
def test_a_plugin_for_another_contract_is_left_out_and_told(stated: str, advice: str, tmp_path: Path) -> None:
    found = discovered(tmp_path, f"other_{abs(hash(stated))}", PLUGIN.format(stated=stated))
    assert found.healthy == []
    (broken,) = found.broken
    assert broken.cause == (
        f"it was written for contract {stated}, but this vlm-run has contract 1.3. {advice}"
    )


def test_what_a_newer_contract_has_is_not_looked_at(tmp_path: Path) -> None:
    source = PLUGIN.format(stated=">=2,<3").replace("ModelSpec(", "ModelSpec(new_field=1, ")
    source += "\n@hookimpl\ndef hook_to_come(model): ...\n"
    (broken,) = discovered(tmp_path, "newer", source).broken
    assert "Upgrade vlm-run." in broken.cause


@pytest.mark.parametrize("stated", ["one", 1, [">=1"]])
def test_nonsense_is_told(stated: object, tmp_path: Path) -> None:
    (broken,) = discovered(
        tmp_path, f"nonsense_{abs(hash(str(stated)))}", PLUGIN.format(stated=stated)
    ).broken
    assert "is not a version range such as '>=1,<2'" in broken.cause
