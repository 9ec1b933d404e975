"""LoRA adapters are named on the command line, and the engine options follow from their files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vlm_run.engine.lora import lora_engine_options, read_lora_adapters
from vlm_run.errors import EngineError


def adapter(directory: Path, config: object) -> str:
    directory.mkdir()
    (directory / "adapter_config.json").write_text(json.dumps(config))
    return str(directory)


def test_adapters_are_read_by_name() -> None:
    assert read_lora_adapters(["ocr=/a/b=c", " maps = /m "]) == {"ocr": "/a/b=c", "maps": "/m"}


@pytest.mark.parametrize("values", [["ocr"], ["=x"], ["ocr="], ["a=x", "a=y"]])
def test_what_is_not_a_name_and_a_path_is_refused(values: list[str]) -> None:
    with pytest.raises(EngineError, match="LoRA adapter"):
        read_lora_adapters(values)


def test_without_adapters_the_engine_has_no_further_option() -> None:
    assert lora_engine_options({}) == {}


def test_the_engine_reserves_the_largest_rank(tmp_path: Path) -> None:
    small, large = adapter(tmp_path / "small", {"r": 4}), adapter(tmp_path / "large", {"r": 20})
    assert lora_engine_options({"a": small, "b": large}) == {
        "enable_lora": True,
        "max_loras": 2,
        "max_lora_rank": 32,
    }


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "has no adapter_config.json with a rank 'r'"),
        ({"r": "8"}, "has no adapter_config.json with a rank 'r'"),
        ([], "does not hold a JSON object"),
        ({"r": 1024}, "has rank 1024; vLLM supports 512 at most"),
    ],
)
def test_an_adapter_that_vllm_could_not_load_is_named(tmp_path: Path, config: object, message: str) -> None:
    with pytest.raises(EngineError, match=rf"LoRA adapter 'ocr'.*{message}"):
        lora_engine_options({"ocr": adapter(tmp_path / "adapter", config)})


def test_a_directory_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"LoRA adapter 'ocr': .*gone is not a directory"):
        lora_engine_options({"ocr": str(tmp_path / "gone")})
