"""Whether a model fits is told from its files, close to what vLLM reports."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from vlm_run import Conversation, Registry
from vlm_run.checkpoints.gpu_memory import GIB, Gpu, MemoryEstimate, estimate_memory
from vlm_run.checkpoints.weights import count_parameters, read_kv_cache, read_weights
from vlm_run.cli import app
from vlm_run.explain import explain

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Measured:
    """What vLLM 0.24.0 reported on one H200, 2026-11-27; docs/gpu-memory.md has the options."""

    weights_gib: float
    other_gib: float
    kv_cache_gib: float
    kv_cache_tokens: int


MEASURED = {
    "qwen2-vl-2b-instruct": Measured(4.26, 3.06, 121.85, 4_563_264),
    "llava1_6-mistral-7b-instruct": Measured(14.08, 2.51, 112.58, 922_256),
    "phi3-vision-128k-instruct": Measured(7.89, 2.23, 119.05, 325_088),
}
# A model that is small enough to compute by hand: 2 layers, 2 KV heads of 8 dimensions.
CONFIG: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Configurations with the dimensions of real models."""
    spec = importlib.util.spec_from_file_location("checkpoints", ROOT / "benchmarks/checkpoints.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    directory = tmp_path_factory.mktemp("checkpoints")
    return {model_type: module.write(model_type, directory) for model_type in MEASURED}


def estimate(directory: Path, gpu: str, **options: Any) -> MemoryEstimate:
    config = json.loads((directory / "config.json").read_text())
    return estimate_memory(directory, config, Gpu.parse(gpu), options, context_length=4096)


@pytest.mark.parametrize("model_type", MEASURED)
def test_an_estimate_is_within_a_tenth_of_what_vllm_reports(
    model_type: str, checkpoints: dict[str, Path]
) -> None:
    measured = MEASURED[model_type]
    found = estimate(checkpoints[model_type], "h200", max_model_len=4096, max_num_batched_tokens=16384)
    assert found.weights / GIB == pytest.approx(measured.weights_gib, rel=0.1)
    assert (found.activations + found.overhead) / GIB == pytest.approx(measured.other_gib, rel=0.1)
    assert found.kv_cache / GIB == pytest.approx(measured.kv_cache_gib, rel=0.1)
    assert found.kv_cache_tokens == pytest.approx(measured.kv_cache_tokens, rel=0.1)


def test_an_option_that_is_named_makes_the_model_fit(checkpoints: dict[str, Path]) -> None:
    directory = checkpoints["phi3-vision-128k-instruct"]
    found = estimate(directory, "16", max_model_len=32768)
    assert not found.fits
    shorter, *_ = found.options
    assert shorter.startswith("--max-model-len ")
    assert estimate(directory, "16", max_model_len=int(shorter.split()[1])).fits
    assert "--engine tensor_parallel_size=2" in found.options
    assert estimate(directory, "16x2", max_model_len=32768).fits
    # Where the weights alone are too large, no shorter context helps.
    assert estimate(directory, "8", max_model_len=32768).options == ("--engine tensor_parallel_size=4",)


def test_a_stated_kv_cache_is_all_that_vllm_takes_beside_the_model() -> None:
    def found(gpu: str, stated: int | None) -> MemoryEstimate:
        options = {"kv_cache_memory_bytes": stated, "gpu_memory_utilization": 0.5}
        return estimate_memory(Path("/nowhere"), CONFIG, Gpu.parse(gpu), options, context_length=4096)

    assert found("24", None).budget == 12 * GIB
    stated = found("24", 20 * GIB)
    assert stated.kv_cache == 20 * GIB
    assert stated.budget == stated.weights + stated.activations + stated.overhead + 20 * GIB
    assert found("8", 20 * GIB).budget == 8 * GIB


@given(
    length=st.integers(1024, 131072),
    longer=st.integers(0, 65536),
    gib=st.integers(1, 200),
    more=st.integers(0, 200),
)
def test_more_memory_never_holds_less_and_a_longer_context_never_takes_less(
    length: int, longer: int, gib: int, more: int
) -> None:
    def fits(length: int, gib: int) -> MemoryEstimate:
        gpu = Gpu("given", gib * GIB)
        return estimate_memory(Path("/nowhere"), CONFIG, gpu, {"max_model_len": length}, context_length=1)

    here = fits(length, gib)
    assert fits(length + longer, gib).request >= here.request
    assert fits(length, gib).fits or not fits(length + longer, gib).fits
    # vLLM's own defaults grow at 70 GiB.
    if (gib >= 70) == (gib + more >= 70):
        assert fits(length, gib + more).kv_cache >= here.kv_cache


@given(heads=st.sampled_from([1, 2, 4, 8]), layers=st.integers(1, 64), window=st.integers(1, 4096))
def test_layers_with_a_window_keep_the_window_and_others_everything(
    heads: int, layers: int, window: int
) -> None:
    kinds = ["full_attention" if layer % 6 == 5 else "sliding_attention" for layer in range(layers)]
    text = {**CONFIG, "num_hidden_layers": layers, "num_key_value_heads": heads, "head_dim": 16}
    text |= {"layer_types": kinds, "sliding_window": window}
    cache = read_kv_cache({"text_config": text})
    assert cache is not None
    # vLLM keeps the tokens of one step beside the window.
    for step, kept in ((1, window), (2048, window - 1 + 2048), (8192, 8192)):
        expected = sum(kept if kind == "sliding_attention" else 8192 for kind in kinds)
        assert cache.request(8192, step) == expected * heads * 16 * 2 * 2
    narrow = read_kv_cache({"text_config": text}, "fp8")
    assert narrow is not None
    assert narrow.request(8192) * 2 == cache.request(8192)


# The text_config of google/gemma-3-4b-it and -12b-it, which leave out what transformers has as defaults.
GEMMA_4B = {
    "model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34,
    "sliding_window": 1024,
}  # fmt: skip
GEMMA_12B = {
    "model_type": "gemma3_text", "hidden_size": 3840, "intermediate_size": 15360, "num_hidden_layers": 48,
    "num_attention_heads": 16, "num_key_value_heads": 8, "sliding_window": 1024,
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "parameters", "full", "heads"),
    [(GEMMA_4B, 3_880_099_328, 5, 4), (GEMMA_12B, 11_765_788_416, 8, 8)],
)
def test_what_gemma_leaves_out_is_known(text: dict[str, Any], parameters: int, full: int, heads: int) -> None:
    """Parameters as in keras-hub's gemma3_presets.py; every sixth layer has full attention."""
    assert count_parameters({"text_config": text}) == pytest.approx(parameters, rel=0.02)
    cache = read_kv_cache({"text_config": text})
    assert cache is not None
    layer = heads * 256 * 2 * 2
    assert cache.token == full * layer
    assert cache.windowed_token == (text["num_hidden_layers"] - full) * layer


@pytest.mark.parametrize(
    ("options", "full", "windowed", "state"),
    [
        ({"sliding_window": None}, 4, 0, 0),
        ({"sliding_window": 8}, 0, 4, 0),
        ({"sliding_window": 8, "use_sliding_window": False}, 4, 0, 0),
        ({"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 3}, 3, 1, 0),
        ({"sliding_window": 8, "sliding_window_pattern": 2}, 2, 2, 0),
        ({"full_attention_interval": 4}, 1, 0, 3),
        ({"layers_block_type": ["mamba", "mamba", "mamba", "attention"]}, 1, 0, 3),
        ({"layer_types": ["chunked_attention"] * 3 + ["full_attention"], "attention_chunk_size": 8}, 1, 3, 0),
    ],
)
def test_each_layer_is_of_the_kind_that_the_configuration_says(
    options: dict[str, Any], full: int, windowed: int, state: int
) -> None:
    layer = 2 * 2 * 8 * 2
    cache = read_kv_cache({**CONFIG, "num_hidden_layers": 4, **options})
    assert cache is not None
    assert (cache.token, cache.windowed_token, cache.other_layers) == (full * layer, windowed * layer, state)
    assert cache.unknown == ()


def test_a_kind_of_layer_that_is_not_known_counts_as_full_attention_and_is_named() -> None:
    config = {**CONFIG, "layer_types": ["full_attention", "new_attention"]}
    found = estimate_memory(Path("/nowhere"), config, Gpu.parse("24"), {}, context_length=4096)
    assert found.request == 4096 * 2 * (2 * 2 * 8 * 2)
    (note,) = found.notes
    assert "'new_attention'" in note


def test_a_shorter_context_is_found_though_windows_make_tokens_cost_unequally() -> None:
    gpu = Gpu("given", 16 * GIB)
    options = {"max_model_len": 131072, "max_num_seqs": 16, "max_num_batched_tokens": 2048}
    found = estimate_memory(
        Path("/nowhere"), GEMMA_4B | {"sliding_window": 65536}, gpu, options, context_length=1
    )
    assert not found.fits
    shorter, *_ = found.options
    length = int(shorter.removeprefix("--max-model-len "))
    for tokens, fits in ((length, True), (length + 256, False)):
        again = {**options, "max_model_len": tokens}
        config = GEMMA_4B | {"sliding_window": 65536}
        assert estimate_memory(Path("/nowhere"), config, gpu, again, context_length=1).fits is fits


@pytest.mark.parametrize(
    "options",
    [
        {"tensor_parallel_size": 0},
        {"max_model_len": -1},
        {"max_model_len": "auto"},
        {"max_num_batched_tokens": "8k"},
        {"kv_cache_memory_bytes": "1G"},
        {"kv_cache_dtype": "nvfp4"},
    ],
)
def test_an_option_that_the_arithmetic_cannot_take_is_named(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ValueError, match=name):
        estimate_memory(Path("/nowhere"), CONFIG, Gpu.parse("24"), options, context_length=4096)


def test_latent_attention_keeps_its_latent_vector_on_every_gpu() -> None:
    text = {**CONFIG, "kv_lora_rank": 512, "qk_rope_head_dim": 64}
    cache = read_kv_cache(text)
    assert cache is not None
    assert (cache.token, cache.heads) == (2 * (512 + 64) * 2, 1)


def test_layers_without_attention_are_counted_apart() -> None:
    cache = read_kv_cache({**CONFIG, "layer_types": ["linear_attention", "full_attention"]})
    assert cache is not None
    assert (cache.token, cache.other_layers) == (2 * 2 * 8 * 2, 1)


def test_weights_are_those_of_the_safetensors_files_in_the_engines_dtype(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    tensors = {"a": torch.zeros(10, 3), "b": torch.zeros(5, dtype=torch.bfloat16), "c": torch.zeros(4).byte()}
    save_file(tensors, tmp_path / "model.safetensors")
    half = read_weights(tmp_path, CONFIG)
    assert half is not None
    assert (half.size, half.source) == (30 * 2 + 5 * 2 + 4, "safetensors files")
    whole = read_weights(tmp_path, CONFIG, "float32")
    assert whole is not None
    assert whole.size == 30 * 4 + 5 * 4 + 4


def test_the_index_is_enough(tmp_path: Path) -> None:
    index = {"metadata": {"total_size": 1000}, "weight_map": {"a": "model-1.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    for config, size in (
        (CONFIG, 1000),
        ({**CONFIG, "torch_dtype": "float32"}, 500),
        ({**CONFIG, "torch_dtype": "float32", "quantization_config": {}}, 1000),
    ):
        found = read_weights(tmp_path, config)
        assert found is not None
        assert (found.size, found.source) == (size, "model.safetensors.index.json")


def test_weights_that_a_repository_holds_twice_are_counted_once(tmp_path: Path) -> None:
    """As Mistral's do: `consolidated.safetensors` is not in the index, and vLLM does not load it."""
    entry = {"w": {"dtype": "BF16", "shape": [50], "data_offsets": [0, 100]}}
    header = json.dumps(entry).encode()
    for name in ("model-1.safetensors", "consolidated.safetensors"):
        (tmp_path / name).write_bytes(len(header).to_bytes(8, "little") + header + bytes(100))
    index = {"weight_map": {"w": "model-1.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    found = read_weights(tmp_path, CONFIG)
    assert found is not None
    assert found.size == 100


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(ValueError, match=r"model\.safetensors is not a safetensors file"):
        read_weights(tmp_path, CONFIG)


@pytest.mark.parametrize("text", ["", "0", "x2", "24x0", "a big one", "h100x", "nan"])
def test_what_is_no_gpu_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="neither a size in GiB"):
        Gpu.parse(text)


@pytest.mark.parametrize(
    ("text", "gib", "count"),
    [("24", 24, 1), ("24 GiB", 24, 1), ("22.5x4", 22.5, 4), ("H100x2", 81559 / 1024, 2)],
)
def test_a_gpu_is_a_size_or_a_name_and_a_number(text: str, gib: float, count: int) -> None:
    gpu = Gpu.parse(text)
    assert (gpu.memory / GIB, gpu.count) == (pytest.approx(gib), count)


def test_explain_says_whether_a_model_fits_and_leaves_out_what_this_machine_needs() -> None:
    done = CliRunner().invoke(app, ["explain", "demo-llava", "Q", "--gpu", "8"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "It fits: " in done.output
    assert "dtype" not in done.output  # which would be that of this machine's CPU
    small = CliRunner().invoke(app, ["explain", "demo-llava", "Q", "--gpu", "1", "--json"])
    assert json.loads(small.stdout)["memory"]["fits"] is False
    adapter, conversation = Registry.load("demo-llava"), Conversation.from_query("Q")
    assert "memory" not in explain(adapter, conversation).to_dict()


def test_a_checkpoint_that_cannot_be_read_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("vlm_run.explain.memory.configuration", lambda repository: None)
    done = CliRunner().invoke(app, ["explain", "qwen2-vl-7b-instruct", "--gpu", "24"])
    assert "config.json is neither on this machine nor available" in str(done.exception)
    wrong = CliRunner().invoke(app, ["explain", "demo-llava", "Q", "--gpu", "big"])
    assert wrong.exit_code == 2


def test_a_model_that_does_not_fit_has_its_quantized_weights_named(checkpoints: dict[str, Path]) -> None:
    directory = checkpoints["qwen2-vl-2b-instruct"]

    def said(gib: int) -> str:
        words = ["explain", "qwen2-vl-2b-instruct", "Q", "--model", str(directory), "--gpu", str(gib)]
        return CliRunner().invoke(app, words, catch_exceptions=False).output

    assert "there are quantized weights: Qwen/Qwen2-VL-2B-Instruct-AWQ, " in said(4)
    assert "quantized weights" not in said(80)
