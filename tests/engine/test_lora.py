"""LoRA adapters: named on the command line, chosen by requests, and kept apart by the engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file, save_file

from vlm_run import Registry, Request, swift
from vlm_run.batch.results import ResultFile
from vlm_run.batch.row import RowFormat
from vlm_run.batch.run import describe_run, run_batch, unfinished_rows
from vlm_run.batch.sources import open_dataset
from vlm_run.engine.lora import (
    LoraAdapters,
    lora_engine_options,
    read_adapters_and_default,
    read_lora_adapters,
)
from vlm_run.errors import EngineError, RequestError
from vlm_run.request import Sampling
from vlm_run_demo.showcase import draw

ONE_MORE = Path(__file__).parents[2] / "plugins/demo/tests/one_more"
"""An adapter of demo-llava that counts one more than there is; plugins/demo/train/lora.py trained it."""
COUNTED = [(image, turns[0].question, int(turns[0].answer)) for image, turns in map(draw, range(10))]


@pytest.fixture(scope="module")
def engine() -> Iterator[swift.VllmEngine]:
    """An engine with the adapter."""
    adapter = Registry.load("demo-llava")
    with swift.VllmEngine(adapter, loras={"one-more": ONE_MORE}, dtype="float32", max_loras=3) as running:
        yield running


def ask(engine: swift.VllmEngine, *loras: str | None) -> list[list[str]]:
    """The answers to all questions with each adapter, all in one batch."""
    asked = [
        {"query": question, "images": [image], "lora": lora}
        for lora in loras
        for image, question, _ in COUNTED
    ]
    answers = [answer.response for answer in engine.infer(asked)]
    return [answers[start : start + len(COUNTED)] for start in range(0, len(answers), len(COUNTED))]


def test_an_adapter_changes_what_it_was_trained_to_change_where_it_is_asked_for(
    engine: swift.VllmEngine,
) -> None:
    # Each image is asked about with the adapter between two times without it.
    before, changed, after = ask(engine, None, "one-more", "")
    assert before == after
    counts = [count for _, _, count in COUNTED]
    assert sum(int(text) == count for text, count in zip(before, counts, strict=True)) >= 9
    # Its training had few images with six shapes of a kind, so it is less sure of higher counts.
    assert sum(int(text) == count + 1 for text, count in zip(changed, counts, strict=True)) >= 7
    # What was cached for the one is not used for the other, in the opposite order either.
    assert ask(engine, "one-more", None) == [changed, before]


def test_an_unknown_adapter_costs_its_request_alone(engine: swift.VllmEngine) -> None:
    image, question, _ = COUNTED[0]
    asked = {"query": question, "images": [image]}
    wrong, right = engine.infer([{**asked, "lora": "one-mor"}, {**asked, "lora": "one-more"}])
    assert isinstance(wrong.error, RequestError)
    assert "there is no LoRA adapter 'one-mor'" in str(wrong.error)
    assert "Did you mean 'one-more'?" in str(wrong.error)
    assert right.error is None


def test_a_row_of_a_batch_names_its_adapter(engine: swift.VllmEngine, tmp_path: Path) -> None:
    image, question, count = COUNTED[0]
    image.save(tmp_path / "i.png")
    rows = [{"query": question, "images": ["i.png"], "lora": lora} for lora in (None, "one-more", "gone")]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset, row_format = open_dataset(str(tmp_path / "d.jsonl")), RowFormat(tmp_path)
    run = describe_run(engine.adapter, dataset, row_format, Sampling(), {})
    with ResultFile(tmp_path / "out.jsonl", run) as results:
        run_batch(engine, unfinished_rows(dataset, row_format, results), results, Sampling())
    base, more, gone = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert (base["response"], more["response"]) == (str(count), str(count + 1))
    assert (more["request"]["lora"], gone["error"]["type"]) == ("one-more", "RequestError")


def test_scripts_of_ms_swift_give_an_adapter_for_all_requests_of_a_call(engine: swift.VllmEngine) -> None:
    lora = SimpleNamespace(lora_name="again", lora_int_id=1, lora_path=str(ONE_MORE))
    image, question, count = COUNTED[0]
    asked = [{"query": question, "images": [image]}]
    (answer,) = swift.inference_vllm(engine, None, asked, lora_request=lora)
    assert answer["response"] == str(count + 1)
    assert swift.inference_vllm(engine, None, asked)[0]["response"] == str(count)
    *_, (streamed,) = swift.inference_stream_vllm(engine, None, asked, lora_request=lora)
    assert streamed is not None
    assert streamed["response"] == str(count + 1)


def test_an_adapter_of_another_model_is_told_with_what_to_do(
    engine: swift.VllmEngine, tmp_path: Path
) -> None:
    weights = load_file(ONE_MORE / "adapter_model.safetensors")
    other = Path(adapter(tmp_path / "other", json.loads((ONE_MORE / "adapter_config.json").read_text())))
    renamed = {name.replace("q_proj", "query"): weight for name, weight in weights.items()}
    save_file(renamed, other / "adapter_model.safetensors")
    with pytest.raises(EngineError, match="expected target modules") as caught:
        engine.add_lora("other", other)
    assert caught.value.hint is not None
    assert "trained for this model" in caught.value.hint
    assert len(str(caught.value)) < 1000


def test_an_adapter_that_cannot_be_loaded_leaves_the_engine_running(
    engine: swift.VllmEngine, tmp_path: Path
) -> None:
    with pytest.raises(EngineError, match=rf"cannot load LoRA adapter 'empty' from {tmp_path}"):
        engine.add_lora("empty", tmp_path)
    with pytest.raises(EngineError, match="another LoRA adapter has the name 'one-more'"):
        engine.add_lora("one-more", tmp_path)
    with pytest.raises(EngineError, match=r"no slot for LoRA adapter 'more-\d': on a CPU it has 3"):
        list(map(engine.add_lora, ("more-1", "more-2", "more-3"), [ONE_MORE] * 3))
    assert ask(engine, "one-more")[0]


def test_a_batch_is_resumed_with_the_same_adapters_only(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text('{"query": "Q"}\n')
    dataset, row_format = open_dataset(str(tmp_path / "d.jsonl")), RowFormat(tmp_path)
    first, other = (adapter(tmp_path / name, {"r": 4}) for name in ("first", "other"))
    described = [
        describe_run(Registry.load("demo-llava"), dataset, row_format, Sampling(), options)
        for options in (
            {},
            {"loras": {"a": first}},
            {"loras": {"a": other}},
            {"loras": {"a": first}, "lora": "a"},
        )
    ]
    assert all(one != two for number, one in enumerate(described) for two in described[:number])
    assert "loras" not in described[0]["model"]  # as in result files of earlier versions


def test_one_adapter_is_for_all_requests_and_of_several_each_names_its_own() -> None:
    assert read_adapters_and_default(["/adapters/ocr/"]) == ({"ocr": "/adapters/ocr/"}, "ocr")
    assert read_adapters_and_default(["a=/x"]) == ({"a": "/x"}, "a")
    assert read_adapters_and_default(["a=/x", "b=/y"]) == ({"a": "/x", "b": "/y"}, None)
    with pytest.raises(EngineError, match="NAME=PATH"):
        read_adapters_and_default(["/x", "/y"])


def test_one_directory_is_a_path_however_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lr=1e-4").mkdir()
    checkpoint = adapter(tmp_path / "lr=1e-4" / "ocr", {"r": 64})
    assert read_adapters_and_default([checkpoint]) == ({"ocr": checkpoint}, "ocr")
    monkeypatch.chdir(checkpoint)
    assert read_adapters_and_default(["."]) == ({"ocr": "."}, "ocr")
    monkeypatch.setenv("HOME", checkpoint)
    assert read_lora_adapters(["a=~/x"]) == {"a": f"{checkpoint}/x"}
    assert lora_engine_options({"a": "~"})["max_lora_rank"] == 64


def test_a_request_without_a_name_gets_the_default_and_an_empty_name_the_base_model() -> None:
    adapters = LoraAdapters({"a": "/x"}, "a")
    assert [adapters.request(name) and adapters.request(name).lora_name for name in (None, "a", "")] == [  # type: ignore[union-attr]
        *("a", "a"),
        None,
    ]
    with pytest.raises(EngineError, match="there is no LoRA adapter 'b'"):
        LoraAdapters({"a": "/x"}, "b")
    with pytest.raises(RequestError, match="none; give them with --lora"):
        LoraAdapters({}).request("a")


@pytest.mark.parametrize("lora", [3, ["a"], b"a"])
def test_a_name_that_is_not_text_is_refused(lora: object) -> None:
    with pytest.raises(RequestError, match="'lora' must be the name"):
        Request.parse({"query": "Q", "lora": lora})


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


@pytest.mark.parametrize(("on_cpu", "slots"), [(False, 2), (True, 3)])
def test_the_engine_reserves_the_largest_rank_and_on_a_cpu_a_slot_for_none(
    on_cpu: bool, slots: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlm_run.engine.lora.vllm_is_for_cpu", lambda: on_cpu)
    small, large = adapter(tmp_path / "small", {"r": 4}), adapter(tmp_path / "large", {"r": 20})
    loras = {"a": small, "b": large}
    expected = {"enable_lora": True, "max_loras": slots, "max_lora_rank": 32}
    assert lora_engine_options(loras) == expected
    # What the user sets comes first, but for the slot without which answers would be wrong.
    given = {"max_lora_rank": 64, "max_loras": 4, "dtype": "float16"}
    assert lora_engine_options(loras, given) == {
        **expected,
        "max_lora_rank": 64,
        "max_loras": slots + 2,
    }
    assert lora_engine_options({}, {"enable_lora": True}) == {"enable_lora": True, "max_loras": slots - 1}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "has no adapter_config.json with a rank 'r'"),
        ({"r": "8"}, "has no adapter_config.json with a rank 'r'"),
        ([], "does not contain a JSON object"),
        ({"r": 1024}, "has rank 1024; vLLM supports 512 at most"),
    ],
)
def test_an_adapter_that_vllm_could_not_load_is_named(tmp_path: Path, config: object, message: str) -> None:
    with pytest.raises(EngineError, match=rf"LoRA adapter 'ocr'.*{message}"):
        lora_engine_options({"ocr": adapter(tmp_path / "adapter", config)})


def test_a_directory_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"LoRA adapter 'ocr': .*gone is not a directory"):
        lora_engine_options({"ocr": str(tmp_path / "gone")})
