"""`vlm-run pull` and `--hub`: downloads from a hub on this machine, in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from .hub import StandInHub, stand_in_hub

modelscope = pytest.mark.skipif(find_spec("modelscope_hub") is None, reason="needs vlm-run[modelscope]")
HUBS = ("huggingface", pytest.param("modelscope", marks=modelscope))
FILES = {
    "config.json": b'{"architectures": ["Qwen2VLForConditionalGeneration"]}',
    "model.safetensors": b"weights" * 1000,
    "pytorch_model.bin": b"the same weights",
    "onnx/model.onnx": b"the same weights",
    "tokenizer.json": b"{}",
}
NEEDED = {"config.json", "model.safetensors", "tokenizer.json"}
LOAD = """
import sys
from vlm_run import Registry
for model in sys.argv[1:]:
    print(Registry.load(model, hub="modelscope").source)
"""
COMMAND = "from vlm_run.cli import main; main()"


@pytest.fixture
def hub() -> Iterator[StandInHub]:
    with stand_in_hub() as hub:
        hub.repositories = {"Qwen/Qwen2-VL-7B-Instruct": FILES, "qwen/Qwen2-VL-7B-Instruct": FILES}
        yield hub


def run(program: str, *words: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("name", HUBS)
def test_pull_downloads_what_vllm_loads_and_only_once(name: str, hub: StandInHub, tmp_path: Path) -> None:
    environment = hub.environment(str(tmp_path))
    words = ("pull", "qwen2-vl-7b-instruct", "--hub", name)
    done = run(COMMAND, *words, environment=environment)
    assert done.returncode == 0, done.stderr
    directory = Path(done.stdout.strip())
    assert directory.is_relative_to(tmp_path)
    assert {str(file.relative_to(directory)) for file in directory.rglob("*") if file.is_file()} == NEEDED
    assert set(hub.served) == NEEDED
    hub.served.clear()
    again = run(COMMAND, *words, environment=environment)
    assert (again.stdout, hub.served) == (done.stdout, [])


@pytest.mark.parametrize("name", HUBS)
def test_pull_takes_a_repository_that_no_plugin_serves(name: str, hub: StandInHub, tmp_path: Path) -> None:
    hub.repositories["acme/new-vl"] = {"config.json": b"{}", "pytorch_model.bin": b"weights"}
    words = ("pull", "acme/new-vl", "--hub", name)
    done = run(COMMAND, *words, environment=hub.environment(str(tmp_path)))
    assert done.returncode == 0, done.stderr
    assert (Path(done.stdout.strip()) / "pytorch_model.bin").read_bytes() == b"weights"


@modelscope
def test_a_model_is_loaded_from_modelscope(hub: StandInHub, tmp_path: Path) -> None:
    models = ("qwen2-vl-7b-instruct", "Qwen/Qwen2-VL-7B-Instruct", "qwen/Qwen2-VL-7B-Instruct")
    done = run(LOAD, *models, environment=hub.environment(str(tmp_path)))
    assert done.returncode == 0, done.stderr
    for model, directory in zip(models, done.stdout.splitlines(), strict=True):
        assert (Path(directory) / "model.safetensors").is_file(), model
    assert sorted(hub.served) == sorted(NEEDED)


def test_a_directory_is_used_as_it_is_with_modelscope(hub: StandInHub, tmp_path: Path) -> None:
    models = ("demo-llava", str(Path(__file__).parents[2] / "plugins/demo/vlm_run_demo/checkpoint"))
    done = run(LOAD, *models, environment=hub.environment(str(tmp_path)))
    assert done.returncode == 0, done.stderr
    for model, directory in zip(models, done.stdout.splitlines(), strict=True):
        assert (Path(directory) / "config.json").is_file(), model
    assert hub.served == []


@modelscope
def test_a_repository_on_modelscope_tells_its_model_type(hub: StandInHub, tmp_path: Path) -> None:
    demo = Path(__file__).parents[2] / "plugins/demo/vlm_run_demo/checkpoint"
    hub.repositories["acme/shapes"] = {file.name: file.read_bytes() for file in demo.iterdir()}
    program = LOAD.replace(".source)", ".spec.model_type)")
    done = run(program, "acme/shapes", environment=hub.environment(str(tmp_path)))
    assert done.stdout == "demo-llava\n", done.stderr


def test_weights_that_a_plugin_ships_are_not_downloaded(hub: StandInHub, tmp_path: Path) -> None:
    done = run(COMMAND, "pull", "demo-llava", environment=hub.environment(str(tmp_path)))
    assert json.loads((Path(done.stdout.strip()) / "config.json").read_text())["architectures"]
    assert hub.served == []


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("acme/missing", "the Hugging Face hub has no repository acme/missing that you can access"),
        ("acme/gated", "access to acme/gated on the Hugging Face hub is restricted. Accept its terms"),
        ("qwen2-vl-9b", "no installed plugin serves the model type 'qwen2-vl-9b'. Did you mean"),
    ],
)
def test_a_refusal_is_one_line(model: str, message: str, hub: StandInHub, tmp_path: Path) -> None:
    hub.gated = {"acme/gated"}
    done = run(COMMAND, "pull", model, environment=hub.environment(str(tmp_path)))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "from the Hugging Face hub: [Errno 111] Connection refused"),
        ({"HF_HUB_OFFLINE": "1"}, ": HF_HUB_OFFLINE is set. Unset it to download."),
    ],
)
def test_no_network_is_said(changed: dict[str, str], message: str, hub: StandInHub, tmp_path: Path) -> None:
    environment = {**hub.environment(str(tmp_path)), **changed}
    done = run(COMMAND, "pull", "qwen2-vl-7b-instruct", environment=environment)
    assert done.returncode == 2
    assert (
        f"error: Qwen/Qwen2-VL-7B-Instruct cannot be downloaded{' ' if message[0] != ':' else ''}{message}"
        in done.stderr
    )


def test_a_missing_library_is_said(hub: StandInHub, tmp_path: Path) -> None:
    hidden = "import sys; sys.modules['modelscope_hub'] = None; " + COMMAND
    environment = hub.environment(str(tmp_path))
    done = run(hidden, "pull", "qwen2-vl-7b-instruct", "--hub", "modelscope", environment=environment)
    assert done.returncode == 2
    assert "which is not installed. pip install 'vlm-run[modelscope]'" in done.stderr
