"""A real engine with random weights: what the prompt costs, that images reach the model, and bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vlm_run import Engine, Limits, Registry, Request
from vlm_run.engine.tracing import trace
from vlm_run.testing.conversations import user

MODEL_TYPE = "qwen2-vl-2b-instruct"
WIDE = Image.linear_gradient("L").resize((400, 100)).convert("RGB")
TALL = Image.radial_gradient("L").resize((90, 300)).convert("RGB")


@pytest.fixture(scope="module")
def qwen(checkpoint: Callable[[str], Path]) -> Iterator[Engine]:
    pytest.importorskip("vllm")
    import torch
    from transformers import AutoConfig, Qwen2VLForConditionalGeneration

    directory = checkpoint(MODEL_TYPE)
    torch.manual_seed(0)
    model = Qwen2VLForConditionalGeneration(AutoConfig.from_pretrained(directory))
    with torch.no_grad():  # large enough for an image to move the answer's probabilities
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    model.save_pretrained(directory)

    limits = Limits(max_model_len=2048, max_pixels=256 * 28 * 28)
    with Registry.load(MODEL_TYPE, checkpoint=directory, limits=limits).engine(
        max_num_seqs=2, dtype="float32", enforce_eager=True, kv_cache_memory_bytes=2**28
    ) as engine:
        yield engine


def _asked(first: Image.Image, second: Image.Image, **bounds: int) -> dict[str, Any]:
    parts = {"type": "image", "image": first}, "Before", {"type": "image", "image": second}, "and after?"
    return {"messages": [user(*parts)], **bounds}


def test_two_images_of_different_shapes_cost_what_was_counted_and_matter(qwen: Engine) -> None:
    counted = tuple(qwen.adapter.count_image_tokens(*image.size) for image in (WIDE, TALL))
    assert counted[0] != counted[1]
    (answer,) = qwen.infer([_asked(WIDE, TALL)], {"max_tokens": 1})
    assert answer.usage.image_tokens == counted
    prompt = qwen.adapter.render_prompt(Request.parse(_asked(WIDE, TALL)).conversation).text
    for token in qwen.adapter.spec.control_tokens:
        prompt = prompt.replace(token, "·")
    # A token for each byte and for each special token, two of which the images' own replace.
    assert answer.usage.prompt_tokens == sum(counted) + len(prompt) - 2

    pairs = [(WIDE, TALL), (WIDE, TALL), (WIDE.rotate(180), TALL), (WIDE, TALL.rotate(90))]
    first, same, *changed = trace(qwen, [_asked(*pair) for pair in pairs], max_tokens=4)
    assert same.token_ids == first.token_ids
    assert same.logprobs == pytest.approx(first.logprobs, abs=1e-4)
    assert all(trace.logprobs != pytest.approx(first.logprobs, abs=1e-4) for trace in changed)


def test_a_requests_bounds_hold_for_it_alone(qwen: Engine) -> None:
    area = 8 * 28 * 28
    bounded, free = qwen.infer([_asked(WIDE, TALL, max_pixels=area), _asked(WIDE, TALL)], {"max_tokens": 1})
    assert all(count <= 8 for count in bounded.usage.image_tokens)
    assert free.usage.image_tokens == tuple(
        qwen.adapter.count_image_tokens(*image.size) for image in (WIDE, TALL)
    )


def test_a_request_does_not_widen_the_engines_bounds(qwen: Engine) -> None:
    large = Image.new("RGB", (1400, 1400))
    (answer,) = qwen.infer([_asked(large, WIDE, max_pixels=10**9)], {"max_tokens": 1})
    assert answer.usage.image_tokens[0] == 256
