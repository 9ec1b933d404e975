"""Bounds on the area of one request's images: counted, explained and processed alike, everywhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image as PILImage

from vlm_run import Adapter, Conversation, MediaPolicy, Registry, Request
from vlm_run.explain import explain
from vlm_run.prompts.conversation import Image

MODEL_TYPES = ["qwen2-vl-2b-instruct", "qwen3-vl-8b-instruct"]
SIDES = st.integers(1, 600)
# From less than any engine's bounds to more than the images here have.
AREAS = st.none() | st.integers(1, 500_000)


def _image(width: int, height: int) -> dict[str, Any]:
    return {"type": "image", "image": PILImage.new("RGB", (width, height))}


def _ask(*parts: dict[str, Any], **bounds: int) -> Conversation:
    question = {"role": "user", "content": [*parts, {"type": "text", "text": "What is this?"}]}
    return Request.parse({"messages": [question], **bounds}).conversation


def _counted(adapter: Adapter, conversation: Conversation) -> list[int]:
    """What the adapter says that each image takes."""
    return [
        adapter.count_image_tokens(*adapter.preprocess_image(image.source, image).size)  # type: ignore[arg-type]
        for _, image in conversation.image_places()
    ]


@pytest.fixture(scope="module", params=MODEL_TYPES)
def adapter(request: pytest.FixtureRequest, checkpoint: Callable[[str], Path]) -> Adapter:
    return Registry.load(request.param, checkpoint=checkpoint(request.param))


@pytest.fixture(scope="module")
def processed(adapter: Adapter) -> Iterator[Callable[[Conversation], list[int]]]:
    """A function that says how many tokens vLLM's processor makes of each image, as for an answer."""
    pytest.importorskip("vllm")
    from vlm_run.testing.vllm_processor import vllm_rendering

    with vllm_rendering(adapter) as render:
        yield lambda conversation: list(render(conversation).image_tokens)


def test_what_is_counted_is_what_vllm_makes_of_a_bounded_image(
    adapter: Adapter, processed: Callable[[Conversation], list[int]]
) -> None:
    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(width=SIDES, height=SIDES, low=AREAS, high=AREAS)
    def agrees(width: int, height: int, low: int | None, high: int | None) -> None:
        assume(max(width, height) <= 200 * min(width, height))
        assume(low is None or high is None or low <= high)
        part = {**_image(width, height), "min_pixels": low, "max_pixels": high}
        assert _counted(adapter, _ask(part)) == processed(_ask(part))

    agrees()


@given(width=SIDES, height=SIDES, low=AREAS, high=AREAS)
def test_a_bounded_image_has_the_size_that_qwens_own_code_gives_it(
    width: int, height: int, low: int | None, high: int | None
) -> None:
    smart_resize = pytest.importorskip("transformers.models.qwen2_vl.image_processing_qwen2_vl").smart_resize
    least, most = 3136, 12845056  # of the engine: preprocessor_config.json
    assume(max(width, height) <= 200 * min(width, height))
    assume((low is None or low >= least) and (high is None or high >= max(least, low or 0)))
    adapter = Registry.load("qwen2-vl-7b-instruct")
    seen = adapter.preprocess_image(PILImage.new("RGB", (width, height)), Image("a.png", low, high))
    if low is not None or high is not None:
        expected = smart_resize(height, width, factor=28, min_pixels=low or least, max_pixels=high or most)
        assert seen.size == expected[::-1]


def test_each_image_has_bounds_of_its_own_or_those_of_the_request(
    adapter: Adapter, processed: Callable[[Conversation], list[int]]
) -> None:
    unit = 28 if "qwen2" in adapter.spec.model_type else 32
    square = _image(1008, 1008)
    conversation = _ask({**square, "max_pixels": 100 * unit**2}, square, max_pixels=400 * unit**2)
    assert processed(conversation) == _counted(adapter, conversation) == [100, 400]
    said = explain(adapter, conversation)
    assert [image.tokens for image in said.images] == [100, 400]
    assert [image.resized for image in said.images] == [(10 * unit, 10 * unit), (20 * unit, 20 * unit)]


@pytest.fixture(scope="module")
def served(adapter: Adapter) -> Iterator[Callable[..., list[int]]]:
    """A function that renders messages as the server does, and counts each image's tokens."""
    pytest.importorskip("vllm")
    from vllm.renderers import renderer_from_config
    from vllm.renderers.registry import RENDERER_REGISTRY

    from vlm_run.server.chat_renderer import use_adapter_renderer

    config = adapter.vllm_config(dtype="float32", enforce_eager=True)
    before = dict(RENDERER_REGISTRY.renderers)
    try:
        use_adapter_renderer(adapter, MediaPolicy(), None)
        renderer = renderer_from_config(config)
    finally:
        RENDERER_REGISTRY.renderers.update(before)

    def count(*parts: dict[str, Any], **processor_kwargs: Any) -> list[int]:
        params = SimpleNamespace(
            chat_template=None, chat_template_kwargs={}, mm_processor_kwargs=processor_kwargs
        )
        rendering = renderer.render_chat_async([[{"role": "user", "content": list(parts)}]], params)
        _, (engine_input,) = asyncio.run(rendering)
        return [span.length for span in engine_input["mm_placeholders"]["image"]]

    yield count
    renderer.shutdown()


def test_the_server_takes_bounds_of_a_part_and_of_the_request(
    adapter: Adapter, served: Callable[..., list[int]]
) -> None:
    unit = 28 if "qwen2" in adapter.spec.model_type else 32
    square = _image(1008, 1008)
    bounded = {**square, "max_pixels": 100 * unit**2}
    assert served(bounded, square, max_pixels=400 * unit**2) == [100, 400]
    assert served(square) == [adapter.count_image_tokens(1008, 1008)]


def test_the_server_takes_no_other_option_of_the_processor(served: Callable[..., list[int]]) -> None:
    from vlm_run.server.error_responses import Refusal

    with pytest.raises(Refusal, match="'do_resize' in 'mm_processor_kwargs' cannot be given"):
        served(_image(64, 64), do_resize=False)
