"""A request whose images do not fit in vLLM's cache of processed images is rendered all the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from PIL import Image
from vllm.utils.cache import LRUCache

from vlm_run import Conversation, Registry
from vlm_run.engine import vllm_internals
from vlm_run.engine.renderer import Rendered
from vlm_run.engine.vllm_internals import skip_what_no_cache_can_hold
from vlm_run.engine.vllm_seams import MULTIMODAL_CACHE
from vlm_run.testing.vllm_processor import vllm_rendering

SMALL = Image.new("RGB", (64, 64), "red")  # 24,600 bytes once demo-qwen's processor is done with it
LARGE = Image.new("RGB", (500, 500), "blue")  # 55,320 bytes
OTHER_LARGE = Image.new("RGB", (500, 500), "green")


@contextmanager
def rendering(cache_bytes: int) -> Iterator[Callable[..., Rendered]]:
    """Yield a function that renders a question about images with a cache of a few kilobytes."""
    adapter = Registry.load("demo-qwen")
    with vllm_rendering(adapter, mm_processor_cache_gb=cache_bytes / 2**30) as render:
        yield lambda *images: render(Conversation.from_query("How many?", images=[*images]))


def processed(rendered: Rendered) -> Any:
    return rendered.engine_input["mm_kwargs"]["image"]  # type: ignore[typeddict-item]


def names(rendered: Rendered) -> Any:
    return rendered.engine_input["mm_hashes"]["image"]  # type: ignore[typeddict-item]


def test_an_image_larger_than_the_cache_is_not_kept_and_evicts_none() -> None:
    with rendering(40_000) as render:
        small, large = render(SMALL), render(LARGE)
        for _ in range(3):
            again, both = render(LARGE), render(SMALL, LARGE)
            assert (again.reused_images, both.reused_images) == (0, 1)
            assert processed(again) == processed(large)
            assert processed(both) == [*processed(small), *processed(large)]
            assert names(both) == [*names(small), *names(large)]


def test_images_that_only_fit_in_the_cache_one_by_one_can_be_in_one_request() -> None:
    with rendering(100_000) as render:
        alone = {id(image): render(image) for image in (SMALL, LARGE, OTHER_LARGE)}
        assert render(OTHER_LARGE).reused_images == 1
        # vLLM needs one image's place for the other, which it has taken note of as one that it has.
        for images in [(LARGE, OTHER_LARGE), (OTHER_LARGE, LARGE)] * 2:
            both = render(*images)
            assert processed(both) == [*processed(alone[id(images[0])]), *processed(alone[id(images[1])])]
            assert names(both) == [*names(alone[id(images[0])]), *names(alone[id(images[1])])]
        render(SMALL)
        assert render(SMALL).reused_images == 1


def test_caches_of_a_vllm_before_0_30_skip_what_they_cannot_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    caches = vllm_internals.locate(MULTIMODAL_CACHE)
    monkeypatch.setattr(caches, "get_lru_cache", caches.get_lru_cache)  # put back after the test
    monkeypatch.delattr(LRUCache, "put_if_fits", raising=False)
    skip_what_no_cache_can_hold.__wrapped__()
    cache = caches.get_lru_cache(1000 / 2**30, dict)
    cache["small"] = {"pixels": b"1" * 400}
    cache["large"] = {"pixels": b"2" * 1000}
    assert list(cache) == ["small"]
    cache["other"] = {"pixels": b"3" * 600}
    assert list(cache) == ["other"]
