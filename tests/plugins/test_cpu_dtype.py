"""On a CPU that would emulate bfloat16 the default dtype is float32, and everything else wins over it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vlm_run import Registry
from vlm_run.cli import app
from vlm_run.plugins import cpu_dtype

AVX2 = {"fma", "avx2"}
NATIVE = [{*AVX2, "avx512f", "avx512_bf16"}, {*AVX2, "avx512f", "amx_tile", "amx_bf16"}]


@pytest.fixture
def old_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_dtype, "cpu_flags", lambda: AVX2)
    monkeypatch.setattr(cpu_dtype, "vllm_is_for_cpu", lambda: True)


def explained(*words: str) -> tuple[str | None, str | None, list[str]]:
    """The dtype, where it comes from, and the notes about it."""
    result = CliRunner().invoke(app, ["explain", *words, "--json"], catch_exceptions=False)
    said = json.loads(result.output)
    notes = [note for note in said["notes"] if "dtype" in note]
    return said["engine_kwargs"].get("dtype"), said["engine_kwargs_from"].get("dtype"), notes


@pytest.mark.usefixtures("old_cpu")
def test_explain_shows_the_dtype_its_origin_and_one_note() -> None:
    assert explained("demo-llava") == ("float32", "vlm-run", [cpu_dtype.NOTE])


@pytest.mark.usefixtures("old_cpu")
def test_a_dtype_that_the_user_or_a_configuration_file_sets_wins(tmp_path: Path) -> None:
    assert explained("demo-llava", "--engine", "dtype=bfloat16") == ("bfloat16", "flag", [])
    (tmp_path / "c.yaml").write_text("dtype: bfloat16\n")
    assert explained("demo-llava", "--config", str(tmp_path / "c.yaml")) == ("bfloat16", "config", [])


@pytest.mark.usefixtures("old_cpu")
def test_a_quantized_model_keeps_the_dtype_of_its_kernels(tmp_path: Path) -> None:
    adapter = Registry.load("demo-llava")
    assert "dtype" not in adapter.engine_kwargs(quantization="awq")
    (tmp_path / "config.json").write_text('{"quantization_config": {"quant_method": "awq"}}')
    assert "dtype" not in Registry.load("demo-llava", checkpoint=tmp_path).engine_kwargs()


@pytest.mark.parametrize("flags", [*NATIVE, set()], ids=["AVX512_BF16", "AMX", "no x86 CPU"])
def test_no_dtype_is_set_where_bfloat16_is_native_or_nothing_is_known(
    flags: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_dtype, "vllm_is_for_cpu", lambda: True)
    monkeypatch.setattr(cpu_dtype, "cpu_flags", lambda: flags)
    assert explained("demo-llava") == (None, None, [])


@pytest.mark.usefixtures("old_cpu")
def test_no_dtype_is_set_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_dtype, "vllm_is_for_cpu", lambda: False)
    assert explained("demo-llava") == (None, None, [])


def test_the_flags_are_those_of_the_first_cpu_of_linux(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu avx2\n\nflags\t\t: other\n")
    for file, flags in (("cpuinfo", {"fpu", "avx2"}), ("nonesuch", set())):
        monkeypatch.setattr(cpu_dtype, "_CPU_INFO", tmp_path / file)
        assert cpu_dtype.cpu_flags.__wrapped__() == flags
