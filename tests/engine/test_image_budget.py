"""Whether the largest image fits, which is said before vLLM starts: no test here has the marker `engine`."""

from __future__ import annotations

from typing import Any

import pytest

from vlm_run import Limits, Registry
from vlm_run.engine.image_budget import check_image_budget
from vlm_run.errors import EngineError

LARGEST = 336
"""Image tokens of demo-llava's largest image, 128 × 128 pixels."""


def options(max_num_batched_tokens: int) -> dict[str, Any]:
    return {"disable_chunked_mm_input": True, "max_num_batched_tokens": max_num_batched_tokens}


@pytest.mark.parametrize("most", [LARGEST - 1, LARGEST])
def test_a_step_that_is_too_small_for_an_image_is_refused_as_by_vllm(most: int) -> None:
    from vllm.v1.core.encoder_cache_manager import compute_mm_encoder_budget

    adapter = Registry.load("demo-llava")
    config = adapter.vllm_config(**options(most))
    if most >= LARGEST:
        check_image_budget(adapter, config)
        compute_mm_encoder_budget(config.scheduler_config, {"image": LARGEST})
        return
    with pytest.raises(EngineError, match="128 × 128 pixels takes 336 tokens"):
        check_image_budget(adapter, config)
    with pytest.raises(ValueError, match=r"max_tokens_per_mm_item \(336\) is larger than"):
        compute_mm_encoder_budget(config.scheduler_config, {"image": LARGEST})


def test_an_engine_says_which_option_to_change() -> None:
    with pytest.raises(EngineError) as refused:
        Registry.load("demo-llava").engine(**options(256))
    assert str(refused.value) == (
        "'demo-llava' cannot start: an image of 128 × 128 pixels takes 336 tokens, which vLLM must process "
        "in one step, but max_num_batched_tokens is 256. Raise it with --engine max_num_batched_tokens=336."
    )


def test_an_image_may_be_processed_in_several_steps() -> None:
    adapter = Registry.load("demo-llava")
    check_image_budget(adapter, adapter.vllm_config(max_num_batched_tokens=128))


def test_a_model_that_takes_no_images_needs_no_room_for_them() -> None:
    adapter = Registry.load("demo-llava", limits=Limits(max_images=0))
    check_image_budget(adapter, adapter.vllm_config(**options(256)))
