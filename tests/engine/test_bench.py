"""The benchmark asks both sides the same, and what it asks is what it says."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from vlm_run import Registry
from vlm_run.engine.bench import Load, Result, compare, synthetic_jpegs

pytest.importorskip("vllm")


def test_no_two_pictures_are_the_same_and_each_has_the_size_asked_for() -> None:
    files = synthetic_jpegs(20, 64, 48, seed=0)
    assert len(set(files)) == 20
    assert {Image.open(io.BytesIO(file)).size for file in files} == {(64, 48)}
    assert files == synthetic_jpegs(20, 64, 48, seed=0)
    assert not set(files) & set(synthetic_jpegs(20, 64, 48, seed=1))


def test_both_sides_see_the_same_prompts() -> None:
    load = Load(width=256, height=192, count=4, max_tokens=4, renderers=0)
    ours, new, again = compare(Registry.load("demo-llava"), load)
    assert [result.images for result in (ours, new, again)] == [4, 4, 4]
    assert ours.prompt_tokens == new.prompt_tokens == again.prompt_tokens
    assert ours.completion_tokens == new.completion_tokens
    assert len(ours.first_token_seconds) == 4


def test_a_result_without_first_tokens_or_gpu_says_so() -> None:
    said = Result("x", images=10, seconds=2.0, prompt_tokens=100, completion_tokens=10).to_dict()
    assert said["images_per_second"] == 5
    assert said["first_token_seconds_p50"] is None
    assert said["gpu_idle"] is None
