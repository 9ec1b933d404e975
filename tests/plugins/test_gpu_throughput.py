"""What vlm-run sets for throughput on a GPU is shown by explain, and everything else wins over it."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from vlm_run import Registry
from vlm_run.cli import app
from vlm_run.plugins import gpu_throughput

MODEL_TYPE = "qwen2-vl-2b-instruct"
GRAPHS = "compilation_config.cudagraph_mm_encoder"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_throughput, "has_nvidia_gpu", lambda: True)
    monkeypatch.setattr(gpu_throughput, "vllm_version", lambda: "0.24.0")


def origin(*words: str) -> str | None:
    """The layer that explain names for the option, if it is set."""
    result = CliRunner().invoke(app, ["explain", MODEL_TYPE, *words, "--json"], catch_exceptions=False)
    found: str | None = json.loads(result.output)["engine_kwargs_from"].get(GRAPHS)
    return found


@pytest.mark.usefixtures("gpu")
def test_explain_shows_the_option_of_a_server_and_where_it_comes_from() -> None:
    assert origin("--served") == "vlm-run, for throughput"
    assert origin() is None


@pytest.mark.usefixtures("gpu")
def test_the_users_own_option_wins_and_is_merged_with_others() -> None:
    adapter = Registry.load(MODEL_TYPE)
    for own, merged in [
        ({"cudagraph_mm_encoder": False}, {"cudagraph_mm_encoder": False}),
        ({"mode": 3}, {"cudagraph_mm_encoder": True, "mode": 3}),
    ]:
        assert adapter.engine_kwargs(served=True, compilation_config=own)["compilation_config"] == merged
        assert adapter.engine_kwargs(compilation_config=own)["compilation_config"] == own
    assert adapter.engine_kwargs(served=True, compilation_config=3)["compilation_config"] == 3
    assert "compilation_config" not in adapter.engine_kwargs(served=True, enforce_eager=True)
    assert origin("--served", "--engine", 'compilation_config={"cudagraph_mm_encoder": false}') == "flag"


@pytest.mark.usefixtures("gpu")
def test_a_model_or_a_vllm_without_encoder_graphs_gets_no_option(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "compilation_config" not in Registry.load("demo-llava").engine_kwargs(served=True)
    monkeypatch.setattr(gpu_throughput, "vllm_version", lambda: "0.23.1")
    assert "compilation_config" not in Registry.load(MODEL_TYPE).engine_kwargs(served=True)


def test_nothing_is_set_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_throughput, "has_nvidia_gpu", lambda: False)
    assert "compilation_config" not in Registry.load(MODEL_TYPE).engine_kwargs(served=True)


@pytest.mark.parametrize("architecture", gpu_throughput.ENCODER_CUDA_GRAPHS)
def test_the_installed_vllm_has_encoder_graphs_where_the_table_says(architecture: str) -> None:
    vllm = pytest.importorskip("vllm")
    from vllm.model_executor.models.interfaces import supports_encoder_cudagraph

    model = vllm.ModelRegistry._try_load_model_cls(architecture)
    assert supports_encoder_cudagraph(model)
