"""The benchmark asks both sides the same, and what it asks is what it says."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from PIL import Image

from vlm_run import Registry
from vlm_run.bench import served
from vlm_run.bench.load import Load, Result, joined, synthetic_jpegs
from vlm_run.bench.offline import compare

pytest.importorskip("vllm")


def test_images_are_all_different_and_of_the_requested_size() -> None:
    files = synthetic_jpegs(20, 64, 48, seed=0)
    assert len(set(files)) == 20
    assert {Image.open(io.BytesIO(file)).size for file in files} == {(64, 48)}
    assert files == synthetic_jpegs(20, 64, 48, seed=0)
    assert not set(files) & set(synthetic_jpegs(20, 64, 48, seed=1))


@pytest.mark.engine
def test_both_sides_see_the_same_prompts_and_give_the_same_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    # `LLM` runs its engine in its own process, which saves one that imports vLLM.
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    sizes = ((256, 192), (128, 128))
    load = Load(sizes, count=4, max_tokens=4, renderers=0, rounds=2)
    results = compare(Registry.load("demo-llava"), load)
    assert [result.size for result in results] == [size for size in sizes for _ in range(3)]
    for ours, new, again in (results[:3], results[3:]):
        assert [result.images for result in (ours, new, again)] == [8, 8, 8]
        assert ours.prompt_tokens == new.prompt_tokens == again.prompt_tokens
        assert new.same_answers(ours) == again.same_answers(ours) == 1
        assert len(ours.first_token_seconds) == 8
        assert ours.stages is not None
        assert sum(ours.stages.values()) == pytest.approx(1)


@pytest.mark.engine
def test_both_servers_see_the_same_prompts_and_give_the_same_answers() -> None:
    # With a KV cache of a fixed size the servers start at once.
    options = {"kv_cache_memory_bytes": 64 * 2**20}
    load = Load(((256, 192),), count=4, max_tokens=4, renderers=0, options=options, clients=(1, 3))
    results = served.compare(Registry.load("demo-llava"), load)
    assert [(result.side, result.clients) for result in results] == [
        (side, clients) for clients in (1, 3) for side in (served.OURS, served.PLAIN)
    ]
    assert len({result.prompt_tokens for result in results}) == 1
    for ours, plain in (results[:2], results[2:]):
        assert plain.same_answers(ours) == 1
        assert 0 < min(ours.first_token_seconds) < max(ours.first_token_seconds) < ours.seconds[0]


def test_options_become_flags_of_the_server() -> None:
    options = {"enforce_eager": True, "trust_remote_code": False, "limit_mm_per_prompt": {"image": 2}}
    assert served.flags_of({**options, "dtype": "auto"}) == [
        "--enforce-eager",
        "--no-trust-remote-code",
        "--limit-mm-per-prompt",
        '{"image": 2}',
        "--dtype",
        "auto",
    ]


def test_rounds_are_joined() -> None:
    first = Result("x", (2.0,), 100, 10, ("a", "b"), (0.1, 0.3), {"engine": 0.5}, 0.8)
    second = Result("x", (3.0,), 100, 10, ("c", "d"), (0.2, 0.4), {"engine": 0.7}, 0.6)
    both = joined([first, second])
    assert both.images_per_second == 4 / 5
    assert both.answers == ("a", "b", "c", "d")
    assert both.stages == {"engine": pytest.approx(0.6)}
    assert both.gpu_busy == pytest.approx((2 * 0.8 + 3 * 0.6) / 5)  # weighted by the rounds' seconds
    assert both.to_dict()["images_per_second_by_round"] == [1.0, 0.67]
    assert both.same_answers(replace(both, answers=("a", "b", "c", "x"))) == 0.75


def test_a_result_without_first_tokens_stages_or_gpu_says_so() -> None:
    said = Result("x", (2.0,), 100, 10, ("a",) * 10).to_dict()
    assert said["images_per_second"] == 5
    assert said["first_token_seconds_p50"] is None
    assert said["stages"] is None
    assert said["gpu_idle"] is None
