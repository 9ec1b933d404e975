"""A pool of renderer processes changes how fast requests are prepared, and nothing else."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import sys
import time
from collections.abc import Iterator
from multiprocessing import active_children
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from pebble.pool.process import WORKERS_NAME
from PIL import Image

from vlm_run import Conversation, Engine, Registry
from vlm_run.adapter import Adapter
from vlm_run.discovery import Plugins, installed_plugins
from vlm_run.engine.pool import RendererPool
from vlm_run.engine.rendering import Rendered
from vlm_run.errors import MediaError, PluginError, RequestError
from vlm_run_demo.drawing import COLOURS, Scene, Shape, paint

QUESTION = "How many red circles are there?"


def picture(seed: int) -> tuple[Image.Image, int]:
    """A picture that no other seed gives, and its number of red circles."""
    random = Random(seed)
    count = random.randint(0, 4)
    kinds = [("red", "circle")] * count + [("blue", "square")] * (4 - count)
    random.shuffle(kinds)
    shapes = tuple(
        Shape(kind, colour, 24.0 + 36 * place, 64 + random.uniform(-20, 20), 12.0, 0.0, COLOURS[colour])
        for place, (colour, kind) in enumerate(kinds)
    )
    grey = 180 + seed % 40
    return paint(Scene(160, 128, (grey, grey, 180 + seed // 40), 0.3, (0, 0), shapes)), count


@pytest.fixture(scope="module")
def pooled() -> Iterator[Engine]:
    with Registry.load("demo-llava").engine(renderers=2) as engine:
        yield engine


@pytest.fixture(scope="module")
def pool(pooled: Engine) -> RendererPool:
    assert pooled._pool is not None
    return pooled._pool


def render(pool: RendererPool, *images: Image.Image | bytes) -> Rendered:
    return asyncio.run(pool.render(Conversation.from_query(QUESTION, images=[*images])))


def test_answers_are_those_of_rendering_in_process(pooled: Engine, engine: Engine) -> None:
    requests = [{"query": QUESTION, "images": [picture(seed)[0]]} for seed in range(20)]
    assert [each.response for each in pooled.infer(requests)] == [
        each.response for each in engine.infer(requests)
    ]


def test_the_engine_gets_the_same_token_ids_and_pixels(pool: RendererPool, engine: Engine) -> None:
    image, _ = picture(5000)  # new to vLLM's own cache, which gives no pixels the second time
    there = render(pool, image)
    here = asyncio.run(engine._renderer.render(Conversation.from_query(QUESTION, images=[image])))
    assert there.engine_input["prompt_token_ids"] == here.engine_input["prompt_token_ids"]
    assert there.image_tokens == here.image_tokens
    (from_pool,), (in_process,) = (
        each.engine_input["mm_kwargs"]["image"]  # type: ignore[typeddict-item]
        for each in (there, here)
    )
    assert from_pool == in_process


def test_hundreds_of_pictures_each_get_their_own_answer(pooled: Engine) -> None:
    pictures = [picture(seed) for seed in range(300)]
    answers = pooled.infer([{"query": QUESTION, "images": [image]} for image, _ in pictures])
    right = sum(answer.response == str(count) for answer, (_, count) in zip(answers, pictures, strict=True))
    # The model itself is right on 98 %; answers about another picture would be right on a fifth.
    assert right >= 285


def test_pictures_are_named_by_their_content_in_every_worker(pool: RendererPool) -> None:
    async def names() -> list[str]:
        conversations = [
            Conversation.from_query(QUESTION, images=[picture(seed)[0]]) for seed in (1, 2, 3, 4) * 5
        ]
        rendered = await asyncio.gather(*map(pool.render, conversations))
        return [each.engine_input["mm_hashes"]["image"][0] for each in rendered]  # type: ignore[typeddict-item]

    found = asyncio.run(names())
    assert len(set(found)) == 4
    assert found == found[:4] * 5


def test_pixels_that_differ_in_shape_alone_have_other_names(pool: RendererPool) -> None:
    wide = Image.fromarray(np.zeros((40, 80, 3), dtype=np.uint8))
    tall = Image.fromarray(np.zeros((80, 40, 3), dtype=np.uint8))
    names = [render(pool, each).engine_input["mm_hashes"]["image"] for each in (wide, tall)]  # type: ignore[typeddict-item]
    assert names[0] != names[1]


def test_a_bad_picture_fails_alone_and_says_where(pooled: Engine) -> None:
    good, count = picture(7)
    first, second = pooled.infer(
        [{"query": QUESTION, "images": [b"no picture"]}, {"query": QUESTION, "images": [good]}]
    )
    assert isinstance(first.error, MediaError)
    assert (first.error.message_index, first.error.image_index) == (0, 0)
    assert second.response == str(count)


def test_a_killed_worker_is_replaced_and_its_requests_are_answered(pooled: Engine) -> None:
    async def kill_one_while_they_work() -> list[str]:
        pictures = [picture(seed) for seed in range(40)]
        requests = [{"query": QUESTION, "images": [image]} for image, _ in pictures]
        answers = asyncio.ensure_future(pooled.ainfer(requests))
        await asyncio.sleep(0.2)
        os.kill(_a_worker(), signal.SIGKILL)
        return [answer.response for answer in await answers]

    answers = asyncio.run(kill_one_while_they_work())
    expected = [str(picture(seed)[1]) for seed in range(40)]
    assert sum(a == b for a, b in zip(answers, expected, strict=True)) >= 38


def test_a_worker_that_dies_idle_is_replaced(pooled: Engine) -> None:
    os.kill(_a_worker(), signal.SIGKILL)
    time.sleep(0.5)
    image, count = picture(11)
    (answer,) = pooled.infer([{"query": QUESTION, "images": [image]}])
    assert answer.response == str(count)


def _a_worker() -> int:
    pids = [child.pid for child in active_children() if child.name == WORKERS_NAME]
    assert pids[0] is not None
    return pids[0]


def test_nothing_is_left_in_shared_memory_once_requests_are_answered(
    pooled: Engine, pool: RendererPool
) -> None:
    pooled.infer([{"query": QUESTION, "images": [picture(seed)[0]]} for seed in range(10)])
    assert not [*Path(pool.folder).iterdir()]


def test_an_adapter_finds_its_plugin_again_in_another_process() -> None:
    adapter = Registry.load("demo-llava")
    copy = pickle.loads(pickle.dumps(adapter))
    assert isinstance(copy, Adapter)
    assert copy.spec == adapter.spec
    assert copy.plugin.name == adapter.plugin.name
    conversation = Conversation.from_query(QUESTION, images=[b""])
    assert copy.render(conversation) == adapter.render(conversation)


def test_an_adapter_of_a_plugin_that_is_not_installed_says_so(
    plugin_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin_folder.add("acme")
    plugins: Plugins = plugin_folder.discover()
    adapter = Registry.load("acme-7b", plugins=plugins)
    pickled = pickle.dumps(adapter)
    monkeypatch.setattr("sys.path", [path for path in sys.path if path != str(plugin_folder.path)])
    installed_plugins.cache_clear()
    with pytest.raises(PluginError, match="acme is not installed"):
        pickle.loads(pickled)


def test_a_request_that_ends_its_process_twice_fails_alone(pooled: Engine) -> None:
    (answer,) = pooled.infer([{"query": QUESTION, "images": [_Deadly.picture()]}])
    assert isinstance(answer.error, RequestError)
    assert "twice" in str(answer.error)
    image, count = picture(3)
    (after,) = pooled.infer([{"query": QUESTION, "images": [image]}])
    assert after.response == str(count)


class _Deadly(Image.Image):
    """Ends the process that unpickles it, as the system does with one that takes too much memory."""

    @classmethod
    def picture(cls) -> _Deadly:
        image = cls()
        image._size, image._mode = (8, 8), "RGB"
        return image

    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (9,)
