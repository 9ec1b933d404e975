"""A pool of renderer processes changes how fast requests are prepared, and nothing else."""

from __future__ import annotations

import asyncio
import io
import os
import pickle
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from psutil import Process
from vllm.renderers import renderer_from_config

from vlm_run import Box, BoxCoordinates, Conversation, Engine, ImageSize, MediaPolicy, Registry
from vlm_run.adapter import Adapter
from vlm_run.engine.renderer import Rendered, Renderer
from vlm_run.engine.renderer_pool import ImageAffinity, RendererPool
from vlm_run.errors import EngineError, MediaError, PluginError, RequestError
from vlm_run.plugins.discovery import Plugins, installed_plugins
from vlm_run_demo.drawing import COLOURS, Scene, Shape, paint

from ..media.pdfs import pdf_of

QUESTION = "How many red circles are there?"


def draw_image(seed: int) -> tuple[Image.Image, int]:
    """An image that no other seed gives, and its number of red circles."""
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


def encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def pooled() -> Iterator[Engine]:
    adapter = Registry.load("demo-llava")
    # As if it had learned to answer with boxes, so that workers tell the sizes of images.
    spec = adapter.spec.model_copy(update={"box_coordinates": BoxCoordinates(maximum=1000)})
    with replace(adapter, spec=spec).engine(renderers=2, dtype="float32") as engine:
        yield engine


@pytest.fixture(scope="module")
def pool(pooled: Engine) -> RendererPool:
    assert pooled._pool is not None
    return pooled._pool


def render(pool: RendererPool, *images: Image.Image | bytes) -> Rendered:
    return asyncio.run(pool.render(Conversation.from_query(QUESTION, images=[*images])))


def test_answers_are_those_of_rendering_in_process(pooled: Engine, engine: Engine) -> None:
    requests = [{"query": QUESTION, "images": [draw_image(seed)[0]]} for seed in range(20)]
    assert [each.response for each in pooled.infer(requests)] == [
        each.response for each in engine.infer(requests)
    ]


def test_the_engine_gets_the_same_token_ids_and_pixels(pool: RendererPool, engine: Engine) -> None:
    image, _ = draw_image(5000)  # new to vLLM's own cache, which gives no pixels the second time
    there = render(pool, image)
    here = asyncio.run(
        engine._generator.front._renderer.render(Conversation.from_query(QUESTION, images=[image]))
    )
    assert there.engine_input["prompt_token_ids"] == here.engine_input["prompt_token_ids"]
    assert there.image_tokens == here.image_tokens
    (from_pool,), (in_process,) = (
        each.engine_input["mm_kwargs"]["image"]  # type: ignore[typeddict-item]
        for each in (there, here)
    )
    assert from_pool == in_process


def test_pages_are_rendered_there_as_in_process(pool: RendererPool, engine: Engine) -> None:
    document = pdf_of(draw_image(5001)[0], draw_image(5002)[0])
    there = render(pool, document)
    conversation = Conversation.from_query(QUESTION, images=[document])
    here = asyncio.run(engine._generator.front._renderer.render(conversation))
    assert there.engine_input["prompt_token_ids"] == here.engine_input["prompt_token_ids"]
    assert there.image_tokens == here.image_tokens
    assert len(there.image_tokens) == 2
    broken = Conversation.from_query(QUESTION, images=[b"%PDF-1.7"])
    with pytest.raises(MediaError, match="message 1, image 1: the PDF is damaged"):
        asyncio.run(pool.render(broken))


def test_hundreds_of_images_each_get_their_own_answer(pooled: Engine) -> None:
    drawn = [draw_image(seed) for seed in range(200)]
    answers = pooled.infer([{"query": QUESTION, "images": [image]} for image, _ in drawn])
    right = sum(answer.response == str(count) for answer, (_, count) in zip(answers, drawn, strict=True))
    # The model itself is right on 98 %; answers about another image would be right on a fifth.
    assert right >= 190


def test_images_are_named_by_their_content_in_every_worker(pool: RendererPool) -> None:
    async def names() -> list[str]:
        conversations = [
            Conversation.from_query(QUESTION, images=[draw_image(seed)[0]]) for seed in (1, 2, 3, 4) * 5
        ]
        rendered = await asyncio.gather(*map(pool.render, conversations))
        return [each.engine_input["mm_hashes"]["image"][0] for each in rendered]  # type: ignore[typeddict-item]

    found = asyncio.run(names())
    assert len(set(found)) == 4
    assert found == found[:4] * 5


def test_names_hold_where_vllm_itself_only_counts() -> None:
    # In 0.24 it does so even where it is given names.
    config = Registry.load("demo-llava").vllm_config(mm_processor_cache_gb=0, enable_prefix_caching=False)
    names = []
    for seed in (1, 2, 1):  # each renderer as it would be in a process of its own
        renderer = renderer_from_config(config)
        rendering = Renderer(Registry.load("demo-llava"), renderer, MediaPolicy())
        rendered = asyncio.run(
            rendering.render(Conversation.from_query(QUESTION, images=[draw_image(seed)[0]]))
        )
        names += rendered.engine_input["mm_hashes"]["image"]  # type: ignore[typeddict-item]
        renderer.shutdown()
    assert names[0] == names[2] != names[1]


def test_equal_images_are_processed_once_whatever_is_asked_about_them(pool: RendererPool) -> None:
    files = [encoded(draw_image(seed)[0]) for seed in range(6000, 6010)]

    async def render_all() -> list[Rendered]:
        asked = [
            Conversation.from_query(f"{QUESTION} {number}", images=[file])
            for number in range(6)
            for file in files
        ]
        return await asyncio.gather(*map(pool.render, asked))

    rendered = asyncio.run(render_all())
    assert sum(each.reused_images for each in rendered) == 50
    for number, each in enumerate(rendered):
        first = rendered[number % 10].engine_input
        assert each.engine_input["mm_kwargs"] == first["mm_kwargs"]  # type: ignore[typeddict-item]
        assert each.engine_input["mm_hashes"] == first["mm_hashes"]  # type: ignore[typeddict-item]
        assert each.image_tokens == rendered[number % 10].image_tokens


def test_images_that_come_again_get_their_own_answers_again(pooled: Engine) -> None:
    drawn = [(encoded(image), count) for image, count in map(draw_image, range(7000, 7100))] * 3
    Random(1).shuffle(drawn)
    answers = pooled.infer([{"query": QUESTION, "images": [image]} for image, _ in drawn])
    right = sum(answer.response == str(count) for answer, (_, count) in zip(answers, drawn, strict=True))
    assert right >= 285


def test_boxes_are_in_pixels_of_an_image_that_a_worker_has_loaded(pooled: Engine, pool: RendererPool) -> None:
    image = encoded(draw_image(9000)[0].resize((640, 320)))
    assert [render(pool, image).image_sizes for _ in range(2)] == [(ImageSize(640, 320, (128, 64)),)] * 2
    request = {"query": QUESTION, "images": [image], "sampling": {"choice": ["[100, 200, 300, 400]"]}}
    assert pooled.infer([request])[0].boxes == (Box("", 64, 64, 192, 128),)


def test_an_image_that_has_left_the_cache_is_processed_again(engine: Engine) -> None:
    conversation = Conversation.from_query(QUESTION, images=[encoded(draw_image(8000)[0])])
    before = asyncio.run(engine._generator.front._renderer.render(conversation))
    cache = engine._generator.front._renderer._processed
    assert cache is not None
    known = asyncio.run(engine._generator.front._renderer.render(conversation))
    assert (before.reused_images, known.reused_images) == (0, 1)

    class ClearedOnceAsked:
        """As it is where another request pushes the image out between the question and the use."""

        def is_cached_item(self, name: str) -> bool:
            found: bool = cache.is_cached_item(name)
            cache.clear_cache()
            return found

    engine._generator.front._renderer._processed = ClearedOnceAsked()
    try:
        again = asyncio.run(engine._generator.front._renderer.render(conversation))
    finally:
        engine._generator.front._renderer._processed = cache
    assert again.reused_images == 0
    assert again.engine_input["mm_kwargs"] == before.engine_input["mm_kwargs"]  # type: ignore[typeddict-item]


def test_the_stages_of_a_request_fit_into_its_time(pooled: Engine, engine: Engine) -> None:
    for running in (pooled, engine):
        (answer,) = running.infer([{"query": QUESTION, "images": [draw_image(8100)[0]]}])
        stages = answer.stages
        assert min(stages.decode, stages.process, stages.engine) > 0
        assert stages.fetch + stages.decode + stages.process + stages.engine <= answer.seconds


@given(st.lists(st.lists(st.integers(0, 8), min_size=1, max_size=3), max_size=60), st.integers(1, 4))
def test_an_image_alone_stays_with_the_worker_that_knows_it(requests: list[list[int]], size: int) -> None:
    roster = ImageAffinity(size)
    knows: list[set[int]] = [set() for _ in range(size)]
    for images in requests:
        anyone = any(set(images) <= each for each in knows)
        chosen = roster.choose([str(image) for image in images])
        assert not anyone or set(images) <= knows[chosen]
        knows[chosen] |= set(images)
        roster.begin(chosen)


def test_new_images_go_to_who_is_least_busy_even_beside_one_that_all_requests_have() -> None:
    roster = ImageAffinity(3)
    chosen = []
    for number in range(30):
        worker = roster.choose(["reference.png", f"{number}.png"])
        roster.begin(worker)
        chosen.append(worker)
    assert {chosen.count(worker) for worker in range(3)} == {10}
    for _ in range(9):
        roster.end(1)
    assert roster.choose(["new.png"]) == 1


def test_what_the_roster_remembers_is_bounded() -> None:
    roster = ImageAffinity(2, most_images=10)
    for number in range(100):
        roster.choose([f"{number}.png", "always.png"])
    assert len(roster._workers_of) == 10


def test_all_workers_are_busy_whatever_kind_the_images_are_of(pooled: Engine, pool: RendererPool) -> None:
    async def most_busy(images: list[Any]) -> list[int]:
        tasks = [
            asyncio.create_task(pool.render(Conversation.from_query(QUESTION, images=[image])))
            for image in images
        ]
        most = [0, 0]
        while not all(task.done() for task in tasks):
            most = [max(pair) for pair in zip(most, pool._affinity._busy_with, strict=True)]
            await asyncio.sleep(0.001)
        return most

    drawn = [draw_image(seed)[0] for seed in range(8200, 8220)]
    for images in (drawn, [encoded(each) for each in drawn]):
        assert min(asyncio.run(most_busy(images))) >= 8
    assert pool._affinity._busy_with == [0, 0]


def test_one_request_may_use_all_cores_and_each_of_many_uses_one(pool: RendererPool) -> None:
    cores = len(os.sched_getaffinity(0))
    assert pool._threads() == min(16, cores)
    for _ in range(cores):
        pool._affinity.begin(0)
    assert pool._threads() == 1
    for _ in range(cores):
        pool._affinity.end(0)


def test_pixels_that_differ_in_shape_alone_have_other_names(pool: RendererPool) -> None:
    wide = Image.fromarray(np.zeros((40, 80, 3), dtype=np.uint8))
    tall = Image.fromarray(np.zeros((80, 40, 3), dtype=np.uint8))
    names = [render(pool, each).engine_input["mm_hashes"]["image"] for each in (wide, tall)]  # type: ignore[typeddict-item]
    assert names[0] != names[1]


def test_a_bad_picture_fails_alone_and_says_where(pooled: Engine) -> None:
    good, count = draw_image(7)
    first, second = pooled.infer(
        [{"query": QUESTION, "images": [b"not an image"]}, {"query": QUESTION, "images": [good]}]
    )
    assert isinstance(first.error, MediaError)
    assert (first.error.message_index, first.error.image_index) == (0, 0)
    assert second.response == str(count)


def test_a_file_that_turns_out_damaged_fails_alone_and_says_where(pooled: Engine) -> None:
    good, count = draw_image(7)
    content = encoded(draw_image(9)[0])
    opened = Image.open(io.BytesIO(content[: len(content) // 2]))
    first, second = pooled.infer(
        [{"query": QUESTION, "images": [opened]}, {"query": QUESTION, "images": [good]}]
    )
    assert isinstance(first.error, MediaError)
    assert str(first.error).startswith("message 1, image 1: the image is damaged or truncated")
    assert second.response == str(count)


def test_a_pool_that_has_ended_starts_no_worker_again() -> None:
    adapter = Registry.load("demo-llava")
    pool = RendererPool(adapter, adapter.vllm_config(), MediaPolicy(), 1, cache_gb=1)
    pool.shutdown()
    before = len(active_children())
    with pytest.raises(EngineError, match="shut down"):
        render(pool, draw_image(1)[0])
    assert len(active_children()) == before
    assert not Path(pool.directory).exists()


def test_a_killed_worker_is_replaced_and_its_requests_are_answered(
    pooled: Engine, pool: RendererPool
) -> None:
    async def kill_one_while_they_work() -> list[str]:
        drawn = [draw_image(seed) for seed in range(40)]
        requests = [{"query": QUESTION, "images": [image]} for image, _ in drawn]
        pid = _a_worker(pool)
        answers = asyncio.ensure_future(pooled.ainfer(requests))
        while not pool._affinity.busy:
            await asyncio.sleep(0.01)
        os.kill(pid, signal.SIGKILL)
        return [answer.response for answer in await answers]

    answers = asyncio.run(kill_one_while_they_work())
    expected = [str(draw_image(seed)[1]) for seed in range(40)]
    assert sum(a == b for a, b in zip(answers, expected, strict=True)) >= 38


def test_a_worker_that_dies_idle_is_replaced(pooled: Engine, pool: RendererPool) -> None:
    worker = Process(_a_worker(pool))
    worker.kill()
    worker.wait()
    image, count = draw_image(11)
    (answer,) = pooled.infer([{"query": QUESTION, "images": [image]}])
    assert answer.response == str(count)


def _a_worker(pool: RendererPool) -> int:
    return pool._workers[0].submit(os.getpid).result()


def test_nothing_is_left_in_shared_memory_once_requests_are_answered(
    pooled: Engine, pool: RendererPool
) -> None:
    pooled.infer([{"query": QUESTION, "images": [draw_image(seed)[0]]} for seed in range(10)])
    assert not [*Path(pool.directory).iterdir()]


def test_an_adapter_finds_its_plugin_again_in_another_process() -> None:
    adapter = Registry.load("demo-llava")
    copy = pickle.loads(pickle.dumps(adapter))
    assert isinstance(copy, Adapter)
    assert copy.spec == adapter.spec
    assert copy.plugin.name == adapter.plugin.name
    conversation = Conversation.from_query(QUESTION, images=[b""])
    assert copy.render_prompt(conversation) == adapter.render_prompt(conversation)


def test_an_adapter_of_a_plugin_that_is_not_installed_says_so(
    plugin_directory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin_directory.add("acme")
    plugins: Plugins = plugin_directory.discover()
    adapter = Registry.load("acme-7b", plugins=plugins)
    pickled = pickle.dumps(adapter)
    monkeypatch.setattr("sys.path", [path for path in sys.path if path != str(plugin_directory.path)])
    installed_plugins.cache_clear()
    with pytest.raises(PluginError, match="acme is not installed"):
        pickle.loads(pickled)


def test_a_request_that_ends_its_process_twice_fails_alone(pooled: Engine) -> None:
    drawn = [draw_image(seed) for seed in range(9100, 9120)]
    images = [image for image, _ in drawn]
    images[5:5] = [_Deadly.image()]
    answers = pooled.infer([{"query": QUESTION, "images": [image]} for image in images])
    deadly = answers.pop(5)
    assert isinstance(deadly.error, RequestError)
    assert "twice" in str(deadly.error)
    assert [answer.error for answer in answers] == [None] * 20
    assert sum(answer.response == str(count) for answer, (_, count) in zip(answers, drawn, strict=True)) >= 19


class _Deadly(Image.Image):
    """Ends the process that unpickles it, as the system does with one that takes too much memory."""

    @classmethod
    def image(cls) -> _Deadly:
        image = cls()
        image._size, image._mode = (8, 8), "RGB"
        return image

    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (9,)
