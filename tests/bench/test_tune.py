"""Candidates are tried in processes of their own, a failed one costs no other, and a run can be resumed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from vlm_run import Registry, Request, Sampling
from vlm_run.bench.tune import (
    DEFAULTS,
    Candidate,
    Trial,
    TrialFile,
    best,
    candidates,
    config_text,
    describe,
    tune,
)
from vlm_run.errors import VlmRunError

RUN = {"model_type": "demo-llava", "requests": 4, "options": {"max_num_seqs": 8}}


@pytest.mark.engine
def test_a_candidate_that_cannot_start_or_takes_too_long_costs_no_other(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    adapter = Registry.load("demo-llava")
    requests = [Request.parse({"query": f"What can you do? {number}"}) for number in range(4)]
    file = tmp_path / "trials.jsonl"
    run = describe(adapter, requests, {})
    tried = [Candidate(DEFAULTS, renderers=0), Candidate("wrong", {"no_such_option": 1})]

    def tune_all(seconds: float = 300) -> list[Trial]:
        return tune(
            adapter, requests, Sampling(max_tokens=4), {}, TrialFile(file, run), tried=tried, seconds=seconds
        )

    first, wrong = tune_all()
    assert first.requests_per_second is not None
    assert first.requests_per_second > 0
    assert (first.same_answers, first.error) == (1.0, None)
    assert wrong.requests_per_second is None
    assert "no_such_option" in (wrong.error or "")
    tried.append(Candidate("slow"))
    *before, slow = tune_all(seconds=1)  # the finished ones are not tried again
    assert before == [first, wrong]
    assert slow.error == "not finished after 1 s"


def test_trials_are_kept_and_those_of_another_run_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "trials.jsonl"
    TrialFile(file, RUN).add(Trial(DEFAULTS, {}, None, 2.0, 1.0), ["a", "b"])
    TrialFile(file, RUN).add(Trial("faster", {"max_num_seqs": 4}, 2, 3.0, 0.5), ["a", "x"])
    again = TrialFile(file, RUN)
    assert [*again.trials] == [DEFAULTS, "faster"]
    assert again.default_answers == ["a", "b"]
    with pytest.raises(VlmRunError, match="trials of another model"):
        TrialFile(file, {**RUN, "requests": 5})
    file.write_text("not JSON\n")
    with pytest.raises(VlmRunError, match="cannot be read"):
        TrialFile(file, RUN)


def test_the_best_is_the_fastest_of_those_with_the_answers_of_the_defaults() -> None:
    trials = [
        Trial(DEFAULTS, {}, None, 2.0, 1.0),
        Trial("other answers", {}, None, 9.0, 0.5),
        Trial("failed", {}, None, error="out of memory"),
        Trial("fast", {"max_num_batched_tokens": 8192}, 4, 3.0, 0.98),
    ]
    chosen = best(trials, 0.9)
    assert chosen is trials[-1]
    assert best([trials[2]], 0.9) is None
    text = config_text(chosen, RUN)
    assert yaml.safe_load(text) == {"max_num_seqs": 8, "max_num_batched_tokens": 8192}
    assert "--renderers 4" in text


def test_what_is_tried_follows_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    qwen, llava = Registry.load("qwen2-vl-2b-instruct"), Registry.load("demo-llava")
    monkeypatch.setattr("vlm_run.bench.tune.has_nvidia_gpu", lambda: True)
    assert [each.name for each in candidates(qwen, 16)][:2] == [DEFAULTS, "encoder CUDA graphs"]
    assert "encoder CUDA graphs" not in [each.name for each in candidates(llava, 16)]
    monkeypatch.setattr("vlm_run.bench.tune.has_nvidia_gpu", lambda: False)
    for each in candidates(qwen, 2):
        assert json.dumps(dict(each.options))
        assert each.renderers in (None, 0, 1)
