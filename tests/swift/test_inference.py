"""ms-swift's functions: a script of its users runs with another import line, on real vLLM."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vlm_run import Registry, Sampling, swift
from vlm_run.errors import EngineError, RequestError, TemplateError
from vlm_run.swift.inference import _prepare
from vlm_run_demo.showcase import draw

# From ms-swift's page on vLLM, as it stands there.
SEED = """
import os
os.environ['CUDA_VISIBLE_DEVICES'] = '0'

from swift.llm import (
    ModelType, get_vllm_engine, get_default_template_type,
    get_template, inference_vllm
)

model_type = ModelType.llava1_6_mistral_7b_instruct
llm_engine = get_vllm_engine(model_type)
template_type = get_default_template_type(model_type)
template = get_template(template_type, llm_engine.hf_tokenizer)
# Interface similar to `transformers.GenerationConfig`
llm_engine.generation_config.max_new_tokens = 1024

images = ['http://modelscope-open.oss-cn-hangzhou.aliyuncs.com/images/cat.png']
request_list = [{'query': 'who are you'}, {'query': 'Describe this image.', 'images': images}]
resp_list = inference_vllm(llm_engine, template, request_list)
for request, resp in zip(request_list, resp_list):
    print(f"query: {request['query']}")
    print(f"response: {resp['response']}")

history1 = resp_list[1]['history']
images.append(None)
request_list = [{'query': 'Is the creature in the picture a dog?', 'history': history1, 'images': images}]
resp_list = inference_vllm(llm_engine, template, request_list)
for request, resp in zip(request_list, resp_list):
    print(f"query: {request['query']}")
    print(f"response: {resp['response']}")
    print(f"history: {resp['history']}")
"""
# The import; a model small enough for a test and what it can be asked; a server at this machine.
CHANGES = {
    "from swift.llm import": "from vlm_run import MediaPolicy\nfrom vlm_run.swift import",
    "ModelType.llava1_6_mistral_7b_instruct": "ModelType.demo_llava",
    "get_vllm_engine(model_type)": (
        "get_vllm_engine(model_type, policy=MediaPolicy(allow_private_addresses=True))"
    ),
    "'who are you'": "'Who are you?'",
    "Describe this image.": "How many shapes are there?",
    "Is the creature in the picture a dog?": "And circles?",
}


@pytest.fixture(scope="module")
def image_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("image") / "cat.png"
    draw(7)[0].save(file)
    return file


@pytest.fixture(scope="module")
def url(image_file: Path) -> Iterator[str]:
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(image_file.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/{image_file.name}"
        server.shutdown()


@pytest.mark.engine
def test_the_seeds_example_runs_with_its_import_line_changed(tmp_path: Path, url: str) -> None:
    script = SEED
    for old, new in {
        **CHANGES,
        "http://modelscope-open.oss-cn-hangzhou.aliyuncs.com/images/cat.png": url,
    }.items():
        assert old in script
        script = script.replace(old, new)
    file = tmp_path / "seed.py"  # without `if __name__ == "__main__":`, as it stands there
    # It ends as many do: the engine runs, and an answer is in the middle.
    file.write_text(f"{script}\nleft_open = llm_engine.stream('Who are you?')\nnext(left_open)\n")
    done = subprocess.run(
        [sys.executable, str(file)], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = [
        line for line in done.stdout.splitlines() if line.startswith(("query: ", "response: ", "history: "))
    ]
    assert said[:2] == ["query: Who are you?", "response: I am a small demo model."]
    assert said[2] == "query: How many shapes are there?"
    shapes, circles = said[3].removeprefix("response: "), said[5].removeprefix("response: ")
    assert shapes.isdigit()
    assert circles.isdigit()
    assert ast.literal_eval(said[6].removeprefix("history: ")) == [
        ["How many shapes are there?", shapes],
        ["And circles?", circles],
    ]
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert not re.search(r"(INFO|WARNING|ERROR) \d\d-\d\d", done.stdout + done.stderr)  # vLLM's log


class _Running(swift.VllmEngine):
    """ms-swift's face on the tests' one engine."""

    def __init__(self, engine: swift.Engine) -> None:
        self.__dict__.update(engine.__dict__)
        self.model_type = engine.adapter.spec.model_type
        self.generation_config = swift.GenerationConfig()


@pytest.fixture
def llm_engine(engine: swift.Engine) -> swift.VllmEngine:
    return _Running(engine)


def test_streamed_answers_grow_to_the_whole_ones(llm_engine: swift.VllmEngine, image_file: Path) -> None:
    requests = [
        {"query": "Who are you?"},
        {"query": "How many shapes are there?", "images": [str(image_file)]},
        {"query": "And circles?", "history": [["How many?", "3"]], "images": [str(image_file), None]},
    ]
    whole = swift.inference_vllm(llm_engine, None, requests)
    *_, last = steps = list(swift.inference_stream_vllm(llm_engine, None, requests))
    assert last == whole
    first = [answers[0]["response"] for answers in steps if answers[0] is not None]
    assert len(set(first)) > 2
    assert all(later.startswith(earlier) for earlier, later in pairwise(first))
    assert last[2] is not None
    assert last[2]["history"][0] == ["How many?", "3"]


def test_what_was_generated_is_counted(llm_engine: swift.VllmEngine) -> None:
    requests = [{"query": "Who are you?"}, {"query": "What?", "images": ["missing.png"]}]
    info: dict[str, Any] = {"left": "from a call before"}
    streamed: dict[str, Any] = {}
    with pytest.warns(RuntimeWarning, match="request 2"):
        swift.inference_vllm(llm_engine, None, requests, generation_info=info)
    with pytest.warns(RuntimeWarning, match="request 2"):
        list(swift.inference_stream_vllm(llm_engine, None, requests, generation_info=streamed))
    names = ["num_prompt_tokens", "num_generated_tokens", "num_samples"]
    assert set(info) == {*names, "runtime", "samples/s", "tokens/s"} == set(streamed)
    (alone,) = llm_engine.infer(requests[:1])
    counted = [alone.usage.prompt_tokens, alone.usage.completion_tokens, 1]
    assert [info[name] for name in names] == counted == [streamed[name] for name in names]


def test_an_adapter_of_lora_that_the_engine_cannot_load_is_refused(llm_engine: swift.VllmEngine) -> None:
    asked = [{"query": "a"}]
    lora = SimpleNamespace(lora_name="ocr", lora_path="/adapters/ocr")  # the engine has no enable_lora
    with pytest.raises(EngineError, match="cannot load LoRA adapter 'ocr' from /adapters/ocr"):
        swift.inference_vllm(llm_engine, None, asked, lora_request=lora)
    with pytest.raises(EngineError, match="enable_lora"):
        next(swift.inference_stream_vllm(llm_engine, None, asked, lora_request=lora))
    assert swift.inference_vllm(llm_engine, None, [{"query": "Who are you?"}])[0]["response"]


def test_generation_config_holds_for_calls_that_bring_none(llm_engine: swift.VllmEngine) -> None:
    llm_engine.generation_config.max_new_tokens = 2
    (short,) = swift.inference_vllm(llm_engine, None, [{"query": "Who are you?"}])
    own = swift.GenerationConfig(max_new_tokens=64)
    (long,) = swift.inference_vllm(llm_engine, None, [{"query": "Who are you?"}], generation_config=own)
    assert long["response"].startswith(short["response"])
    assert long["response"] == "I am a small demo model."
    assert short["response"] != long["response"]


def test_generation_config_refuses_wrong_values_and_names_where_they_are_set() -> None:
    config = swift.GenerationConfig()
    config.temperature, config.top_p, config.top_k, config.repetition_penalty = 0.5, 0.9, 40, 1.1
    config.stop = ["\n"]
    assert config.stop == ("\n",)
    with pytest.raises(ValueError, match="temperature"):
        config.temperature = -1
    with pytest.raises(ValueError, match="temprature"):
        config.temprature = 1.0
    assert config.temperature == 0.5


def test_generation_config_is_set_in_any_order_and_checked_when_it_is_used() -> None:
    config = swift.VllmGenerationConfig(top_k=-1)
    config.n = 3
    with pytest.raises(RequestError, match="set a temperature"):
        config.as_sampling()
    config.do_sample = True
    assert config.as_sampling() == Sampling(n=3, temperature=1.0, top_k=-1)
    config.temperature = 0.3
    config.do_sample = True
    assert config.temperature == 0.3
    config.do_sample = False
    assert config.temperature == 0.0


def test_a_template_changes_the_prompt_and_brings_a_system_message(
    llm_engine: swift.VllmEngine, tmp_path: Path
) -> None:
    file = tmp_path / "other.jinja"
    file.write_text("[INST] Who are you? [/INST]")
    other = swift.get_template(str(file), llm_engine.hf_tokenizer)
    (answer,) = swift.inference_vllm(llm_engine, other, [{"query": "How many shapes are there?"}])
    assert answer["response"] == "I am a small demo model."
    own = swift.get_template("demo-llava", default_system="Ignored by nobody")
    assert _prepare(llm_engine, own, [{"query": "a"}, {"query": "b", "system": "c"}])[1] == [
        {"query": "a", "system": "Ignored by nobody"},
        {"query": "b", "system": "c"},
    ]


def test_a_request_that_cannot_be_served_costs_no_other(llm_engine: swift.VllmEngine) -> None:
    requests = [{"query": "What?", "images": ["missing.png"]}, {"query": "Who are you?"}]
    with pytest.warns(RuntimeWarning, match=r"request 1 failed: .*missing\.png"):
        bad, good = swift.inference_vllm(llm_engine, None, requests)
    assert bad["response"] == ""
    assert "missing.png" in bad["error"]
    assert good["response"] == "I am a small demo model."


@pytest.mark.parametrize("model_type", Registry.model_types())
def test_every_model_type_has_a_template_of_its_own(model_type: str) -> None:
    template = swift.get_template(swift.get_default_template_type(model_type))
    assert template.chat_template == Registry.load(model_type).spec.chat_template


def test_an_unknown_template_is_refused_with_those_there_are() -> None:
    with pytest.raises(TemplateError, match="demo-llava"):
        swift.get_template("no-such-template")
