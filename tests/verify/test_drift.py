"""vLLM's greedy answers beside those of transformers, on the demo model's weights and on damaged ones."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm_run import Engine, Registry
from vlm_run.engine.tracing import dtype_of, trace
from vlm_run.errors import EngineError, MediaError
from vlm_run.response import Trace
from vlm_run.verify.drift import Report, compare, judge, standard_requests
from vlm_run.verify.reference import Continued, check_reference
from vlm_run_demo import CHECKPOINT
from vlm_run_demo.dialogues import held_out
from vlm_run_demo.evaluate import request

# --- Comparing, without a model


def _compared(ours: list[int], theirs: list[int], logprobs: list[tuple[float, float]]) -> Any:
    trace = Trace("", (1, 2), tuple(ours), tuple(pair[0] for pair in logprobs))
    return compare("p", trace, Continued((1, 2), tuple(theirs), tuple(pair[1] for pair in logprobs)))


LOGPROB = st.floats(-50, 0)
STEPS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.tuples(LOGPROB, LOGPROB)), min_size=1)


@given(STEPS)
def test_every_token_counts_and_the_first_that_differs_is_named(steps: list[Any]) -> None:
    drift = _compared(*map(list, zip(*steps, strict=True)))
    said = drift.to_dict()
    same = [ours == theirs for ours, theirs, _ in steps]
    assert said["tokens"] == len(steps)
    assert said["agreement"] == sum(same) / len(same)
    first = said["first_divergence"]
    assert all(same) if first is None else all(same[:first]) and not same[first]
    assert said["largest_logprob_difference"] == max(abs(ours - theirs) for _, _, (ours, theirs) in steps)


def test_a_summary_weighs_tokens_not_prompts() -> None:
    short = _compared([1], [2], [(-1.0, -1.5)])
    long = _compared([1, 2, 3], [1, 2, 3], [(0.0, 0.0)] * 3)
    summary = Report("m", "float32", {}, (short, long)).to_dict()["summary"]
    assert summary["agreement"] == 0.75
    assert summary["tokens"] == 4
    assert (summary["diverging_prompts"], summary["first_divergence"]) == (1, 0)
    assert summary["largest_logprob_difference"] == 0.5
    assert summary["mean_logprob_difference"] == 0.125


def test_other_prompt_tokens_are_told() -> None:
    drift = compare("p", Trace("", (1, 2), (), ()), Continued((1, 2, 2), (), ()))
    assert drift.to_dict()["same_prompt"] is False


def test_requests_with_more_images_than_a_model_takes_are_left_out() -> None:
    counts = [len(request["images"]) for request in standard_requests(None).values()]
    assert max(counts) == 2
    assert [len(request["images"]) for request in standard_requests(1).values()] == [
        count for count in counts if count < 2
    ]


# --- Traces


def test_a_trace_is_the_answer_with_its_ending_token_and_probabilities(engine: Engine) -> None:
    question = request(held_out(1)[0])
    (traced,) = trace(engine, [question], 32)
    (answer,) = engine.infer([question], {"max_tokens": 32})
    assert traced.response == answer.response
    assert len(traced.prompt_token_ids) == answer.usage.prompt_tokens
    assert len(traced.token_ids) == answer.usage.completion_tokens
    assert traced.token_ids[-1] == 2  # </s>
    assert all(math.isfinite(logprob) and logprob <= 0 for logprob in traced.logprobs)


def test_a_trace_ends_after_as_many_tokens_as_asked(engine: Engine) -> None:
    (traced,) = trace(engine, [standard_requests(1)["one image"]], 3)
    assert len(traced.token_ids) == len(traced.logprobs) == 3


def test_a_request_that_cannot_be_served_is_an_error(engine: Engine) -> None:
    with pytest.raises(MediaError):
        trace(engine, [{"query": "Q", "images": ["/nowhere.png"]}, "Q"], 3)


# --- Against transformers


@pytest.fixture(scope="module")
def asked() -> dict[str, Any]:
    """Held-out questions about one image and two, with follow-ups, and images unlike all it has seen."""
    questions = {f"question {number}": request(example) for number, example in enumerate(held_out(30))}
    return {**questions, **standard_requests(2)}


@pytest.fixture(scope="module")
def traces(engine: Engine, asked: dict[str, Any]) -> list[Trace]:
    return trace(engine, list(asked.values()), 16)


def test_vllm_and_transformers_agree_on_the_demo_model(
    engine: Engine, asked: dict[str, Any], traces: list[Trace]
) -> None:
    report = judge(engine.adapter, asked, traces, dtype_of(engine))
    said = report.to_dict()
    assert said["dtype"] == "float32"
    assert said["summary"]["same_prompts"] == len(asked)
    assert said["summary"]["tokens"] == sum(len(each.token_ids) for each in traces)
    assert report.agreement == 1.0
    assert said["summary"]["largest_logprob_difference"] < 1e-3


def test_weights_that_are_not_the_same_are_found_out(
    engine: Engine, asked: dict[str, Any], traces: list[Trace], tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(CHECKPOINT, tmp_path, dirs_exist_ok=True)
    weights = load_file(CHECKPOINT / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    damaged = {
        name: weight + 0.05 * torch.randn(weight.shape, generator=generator).to(weight.dtype)
        for name, weight in weights.items()
    }
    save_file(damaged, tmp_path / "model.safetensors", metadata={"format": "pt"})
    report = judge(Registry.load("demo-llava", checkpoint=tmp_path), asked, traces, dtype_of(engine))
    assert report.agreement < 0.9
    assert report.to_dict()["summary"]["largest_logprob_difference"] > 1


def test_another_template_is_told_as_other_prompt_tokens(engine: Engine, tmp_path: Path) -> None:
    template = tmp_path / "other.jinja"
    template.write_text("{% for message in messages %}{{ message.content[-1].text }}{% endfor %}?")
    asked = {"text": "How many?"}
    (traced,) = trace(engine, ["How many?"], 4)
    (drift,) = judge(
        Registry.load("demo-llava", chat_template=template), asked, [traced], dtype_of(engine)
    ).prompts
    assert not drift.same_prompt


@pytest.mark.parametrize("config", [{"model_type": "phi3_v", "auto_map": {"AutoConfig": "code.Config"}}, {}])
def test_a_model_that_transformers_lacks_is_refused_before_vllm_starts(
    config: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["Phi3VForCausalLM"], **config}))
    with pytest.raises(EngineError, match=r"transformers (cannot load|has no model)"):
        check_reference(Registry.load("phi3_5-vision-instruct", checkpoint=tmp_path))
