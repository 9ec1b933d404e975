"""Sampling parameters of a model type, beside those of a request."""

from __future__ import annotations

import pytest

pytest.importorskip("vllm")

from vllm import SamplingParams

from vlm_run.engine.sampling import with_model_params

MODEL = {"skip_special_tokens": False, "extra_args": {"ngram_size": 30, "window_size": 90}}


def test_a_model_types_parameters_hold_where_the_request_leaves_the_default() -> None:
    params = with_model_params(SamplingParams(temperature=0.5, max_tokens=7), MODEL)
    assert params.skip_special_tokens is False
    assert params.extra_args == {"ngram_size": 30, "window_size": 90}
    assert (params.temperature, params.max_tokens) == (0.5, 7)


def test_a_requests_own_arguments_take_precedence() -> None:
    params = with_model_params(SamplingParams(extra_args={"ngram_size": 10, "other": 1}), MODEL)
    assert params.extra_args == {"ngram_size": 10, "window_size": 90, "other": 1}


def test_most_model_types_have_none() -> None:
    params = SamplingParams()
    assert with_model_params(params, {}) is params
