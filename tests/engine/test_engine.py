"""Real vLLM answers: shapes of requests, what an answer carries, and requests that fail alone."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from PIL import Image
from transformers import AutoTokenizer

from vlm_run import Conversation, Engine, Registry, Request, Sampling
from vlm_run.engine.other_adapter import with_adapter
from vlm_run.errors import ContextOverflowError, ConversationError, MediaError, PluginError, RequestError
from vlm_run_demo import CHECKPOINT
from vlm_run_demo.drawing import Scene, Shape, paint
from vlm_run_demo.showcase import draw

RED_CIRCLES = "How many red circles are there?"


def draw_shapes(*shapes: tuple[str, str], width: int = 160, height: int = 128) -> Image.Image:
    """Shapes beside each other, each given as (colour, kind)."""
    from vlm_run_demo.drawing import COLOURS

    step = width / len(shapes)
    drawn = tuple(
        Shape(kind, colour, step * (i + 0.5), height / 2, 12.0, 0.0, COLOURS[colour])
        for i, (colour, kind) in enumerate(shapes)
    )
    return paint(Scene(width, height, (190, 190, 190), 0.3, (0, 0), drawn))


TOKENIZER = AutoTokenizer.from_pretrained(CHECKPOINT)
TWO_RED = draw_shapes(("red", "circle"), ("blue", "square"), ("red", "circle"))
ONE_RED = draw_shapes(("green", "star"), ("red", "circle"))


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_answers_a_question_about_an_image(engine: Engine) -> None:
    (answer,) = engine.infer([{"query": RED_CIRCLES, "images": [TWO_RED]}])
    assert answer.response == "2"
    assert answer.finish_reason == "stop"
    assert answer.error is None


def test_a_large_jpeg_decoded_smaller_gets_the_answers_and_tokens_of_the_whole(engine: Engine) -> None:
    whole, files, questions = [], [], []
    for seed in range(20):
        small, turns = draw(seed)
        buffer = io.BytesIO()
        small.resize((small.width * 7, small.height * 7), Image.Resampling.NEAREST).save(buffer, "JPEG")
        files.append(buffer.getvalue())
        whole.append(Image.open(buffer).convert("RGB"))
        questions.append(turns[seed % 3].question)
        assert engine.adapter.allows_downscaled_decode(
            whole[-1].size, [-(-side // 2) for side in whole[-1].size]
        )  # type: ignore[arg-type]
    about_files, about_whole = (
        engine.infer([{"query": q, "images": [each]} for q, each in zip(questions, images, strict=True)])
        for images in (files, whole)
    )
    assert [each.response for each in about_files] == [each.response for each in about_whole]
    assert [each.usage for each in about_files] == [each.usage for each in about_whole]


def test_a_checkpoint_that_sees_more_than_its_plugin_says_gets_full_resolution(engine: Engine) -> None:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((1000, 500)).convert("RGB").save(buffer, "JPEG")
    conversation = Conversation.from_query(RED_CIRCLES, images=[buffer.getvalue()])
    adapter = engine.adapter.with_engine_kwargs(
        {"mm_processor_kwargs": {"image_grid_pinpoints": ((64, 64),)}}
    )
    wrong = with_adapter(engine, adapter)._generator.front._renderer
    assert adapter.allows_downscaled_decode((1000, 500), (500, 250))
    assert adapter.count_image_tokens(1000, 500) != engine.adapter.count_image_tokens(1000, 500)
    rendered = asyncio.run(wrong.render(conversation))
    assert wrong._images.full_resolution_only
    assert rendered.image_tokens == (engine.adapter.count_image_tokens(1000, 500),)


def test_every_request_shape_gives_the_same_answer(engine: Engine, tmp_path: Path) -> None:
    file = tmp_path / "two.png"
    file.write_bytes(png(TWO_RED))
    part = {"type": "image_url", "image_url": {"url": file.as_uri()}}
    conversation = Conversation.from_query(RED_CIRCLES, images=[file])
    requests: list[Any] = [
        {"query": RED_CIRCLES, "images": [png(TWO_RED)]},
        {"query": f"<image>{RED_CIRCLES}", "images": [str(file)]},
        {"query": f"<img>{file}</img>{RED_CIRCLES}"},
        {"messages": [{"role": "user", "content": [part, {"type": "text", "text": RED_CIRCLES}]}]},
        {"messages": [{"role": "user", "content": f"<image>{RED_CIRCLES}"}], "images": [file]},
        conversation,
        Request(conversation),
    ]
    assert [answer.response for answer in engine.infer(requests)] == ["2"] * len(requests)


def test_compares_two_images(engine: Engine) -> None:
    (answer,) = engine.infer([{"query": "Which picture has more red circles?", "images": [ONE_RED, TWO_RED]}])
    assert answer.response == "the second"
    assert len(answer.usage.image_tokens) == 2


def test_history_of_an_answer_is_passed_on_to_the_next_question(engine: Engine) -> None:
    (first,) = engine.infer([{"query": RED_CIRCLES, "images": [TWO_RED]}])
    assert first.history == [[RED_CIRCLES, "2"]]
    (second,) = engine.infer(
        [{"query": "And blue ones?", "history": first.history, "images": [TWO_RED, None]}]
    )
    assert second.response == "0"
    assert second.history == [[RED_CIRCLES, "2"], ["And blue ones?", "0"]]


def test_an_answer_that_is_continued_keeps_the_blank_between_its_words(engine: Engine) -> None:
    begun = [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "I am a"}]
    (answer,) = engine.infer([Conversation.from_messages(begun, continued=True)])
    assert answer.response == " small demo model."
    assert answer.history == [["Who are you?", "I am a small demo model."]]


def test_answers_without_a_picture_and_with_a_system_message(engine: Engine) -> None:
    (answer,) = engine.infer([{"query": "Who are you?", "system": "You are a helpful assistant."}])
    assert answer.response == "I am a small demo model."
    assert answer.usage.image_tokens == ()


def test_usage_counts_every_token(engine: Engine) -> None:
    (answer,) = engine.infer([{"query": RED_CIRCLES, "images": [TWO_RED]}])
    image_tokens = engine.adapter.count_image_tokens(*TWO_RED.size)
    one_each = len(TOKENIZER(f"[INST] <image>\n{RED_CIRCLES} [/INST]").input_ids)
    assert answer.usage.image_tokens == (image_tokens,)
    assert answer.usage.prompt_tokens == one_each - 1 + image_tokens
    assert answer.usage.completion_tokens == len(TOKENIZER(" 2</s>", add_special_tokens=False).input_ids)


def test_bad_requests_fail_alone_and_in_their_places(engine: Engine) -> None:
    good = {"query": RED_CIRCLES, "images": [TWO_RED]}
    answers = engine.infer(
        [
            good,
            {"query": RED_CIRCLES, "images": [png(TWO_RED)[:200]]},
            {"query": "<image><image>Which?", "images": [TWO_RED]},
            {"question": "What?"},
            good,
            {"messages": [{"role": "user", "content": "hi"}], "sampling": {"temprature": 1.0}},
        ]
    )
    assert [answer.response for answer in answers] == ["2", "", "", "", "2", ""]
    assert [type(answer.error) for answer in answers] == [
        type(None),
        MediaError,
        ConversationError,
        ConversationError,
        type(None),
        RequestError,
    ]
    assert "message 1, image 1" in str(answers[1].error)
    assert "'temperature'" in str(answers[5].error)
    assert answers[1].finish_reason == "error"
    with pytest.raises(MediaError):
        answers[1].raise_for_error()


def test_a_prompt_that_cannot_fit_fails_with_the_count_of_each_image(engine: Engine) -> None:
    (answer,) = engine.infer([{"query": "shapes " * 2000, "images": [TWO_RED]}])
    assert isinstance(answer.error, ContextOverflowError)
    image_tokens = engine.adapter.count_image_tokens(*TWO_RED.size)
    assert str(image_tokens) in str(answer.error)
    assert "2048" in str(answer.error).replace(",", "")


def test_a_picture_of_a_refused_request_is_answered_about_in_a_later_one(engine: Engine) -> None:
    count = next(n for n in range(2048) if len(TOKENIZER("shapes " * n).input_ids) > 1900)
    unseen = draw_shapes(("red", "circle"), ("green", "star"), ("blue", "square"))
    refused, answered = [
        engine.infer([{"query": query, "images": [unseen]}])[0] for query in ("shapes " * count, RED_CIRCLES)
    ]
    assert isinstance(refused.error, ContextOverflowError)
    assert answered.response == "1"


def test_more_images_than_the_model_takes_are_refused(engine: Engine) -> None:
    (answer,) = engine.infer([{"query": "Which?", "images": [TWO_RED] * 3}])
    assert isinstance(answer.error, ConversationError)
    assert "3" in str(answer.error)
    assert "2" in str(answer.error)


def test_an_answer_cut_at_max_tokens_says_so(engine: Engine) -> None:
    (answer,) = engine.infer(["What can you do?"], {"max_tokens": 2})
    assert answer.finish_reason == "length"
    assert answer.usage.completion_tokens == 2


def test_sampling_of_a_request_goes_before_that_of_the_call(engine: Engine) -> None:
    own = {"query": "What can you do?", "sampling": {"max_new_tokens": 1}}
    short, long = engine.infer([own, "What can you do?"], Sampling(max_tokens=100))
    assert short.usage.completion_tokens == 1
    assert long.finish_reason == "stop"


def test_a_stop_string_ends_the_answer(engine: Engine) -> None:
    (answer,) = engine.infer(["What can you do?"], {"stop": ("questions",)})
    assert answer.response.rstrip() == "I answer"


def test_a_seed_makes_sampling_repeatable(engine: Engine) -> None:
    nothing = ""  # of which the model can make many things
    sampling = {"temperature": 2.0, "max_tokens": 40}
    seeds = [0, 0, 1, 2, 3]
    answers = engine.infer([{"query": nothing, "sampling": {**sampling, "seed": seed}} for seed in seeds])
    responses = [answer.response for answer in answers]
    assert responses[0] == responses[1]
    assert len(set(responses)) > 1


def test_a_request_that_a_template_fails_at_fails_alone(engine: Engine, tmp_path: Path) -> None:
    picky = tmp_path / "picky.jinja"
    picky.write_text("[INST] {{ 'Hello!' if messages | length == 1 else messages.missing.role }} [/INST]")
    other = with_adapter(engine, Registry.load("demo-llava", chat_template=picky))
    good, bad = other.infer(["hi", {"query": "hi", "history": [["a", "b"]]}])
    assert good.response.startswith("Hello!")
    assert isinstance(bad.error, PluginError)
    assert "picky.jinja" in str(bad.error)


def test_stream_gives_the_answer_in_pieces(engine: Engine) -> None:
    deltas = list(engine.stream("What can you do?"))
    assert len(deltas) > 3
    assert all(delta.response is None for delta in deltas[:-1])
    response = deltas[-1].response
    assert response is not None
    assert "".join(delta.text for delta in deltas) == response.response
    assert response.response == "I answer questions about pictures of coloured shapes."
    assert 0 < response.first_token_seconds < response.seconds


@pytest.mark.parametrize(
    "sampling",
    [
        {},
        {"max_tokens": 3},
        {"stop": ("questions",)},
        {"stop": ("tions",)},
        {"n": 2, "temperature": 1.5, "seed": 3, "max_tokens": 8},
    ],
)
def test_a_stream_and_a_whole_answer_are_the_same(engine: Engine, sampling: dict[str, Any]) -> None:
    (whole,) = engine.infer(["What can you do?"], sampling)
    *_, last = engine.stream("What can you do?", sampling)
    streamed = last.response
    assert streamed is not None
    for name in ("response", "responses", "history", "usage", "finish_reason"):
        assert getattr(streamed, name) == getattr(whole, name)
    for each in (whole, streamed):
        assert 0 < each.first_token_seconds < each.seconds


def test_vllm_hands_over_a_whole_answer_once_and_a_stream_in_pieces(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate, taken = engine._llm.generate, 0

    async def counted(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        nonlocal taken
        async for output in generate(*args, **kwargs):
            taken += 1
            yield output

    monkeypatch.setattr(engine._llm, "generate", counted)
    (answer,) = engine.infer(["What can you do?"])
    assert (taken, answer.usage.completion_tokens > 3) == (1, True)
    list(engine.stream("What can you do?"))
    assert taken > 3


def test_a_stream_left_early_stops_and_harms_nothing(engine: Engine) -> None:
    for delta in engine.stream("What can you do?", {"max_tokens": 1000}):
        assert delta.response is None
        break
    assert engine.infer([{"query": RED_CIRCLES, "images": [ONE_RED]}])[0].response == "1"


def test_stream_raises_what_is_wrong_with_its_request(engine: Engine) -> None:
    with pytest.raises(MediaError, match="message 1, image 1: "):
        list(engine.stream({"query": "What?", "images": ["missing.png"]}))


def test_asynchronous_twins_run_in_the_callers_loop(engine: Engine) -> None:
    async def ask() -> tuple[list[str], str]:
        answers, text = await asyncio.gather(
            engine.ainfer([{"query": RED_CIRCLES, "images": [image]} for image in (ONE_RED, TWO_RED)]),
            collect(),
        )
        return [answer.response for answer in answers], text

    async def collect() -> str:
        return "".join([delta.text async for delta in engine.astream("Who are you?")])

    assert asyncio.run(ask()) == (["1", "2"], "I am a small demo model.")


def test_cancelling_an_asynchronous_call_harms_nothing(engine: Engine) -> None:
    async def cancel_at_once() -> None:
        call = asyncio.create_task(engine.ainfer(["What can you do?"], {"max_tokens": 1500}))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(cancel_at_once())
    assert engine.infer(["Who are you?"])[0].response == "I am a small demo model."


def test_many_requests_keep_their_order(engine: Engine) -> None:
    rng = Random(0)
    counts = [rng.randint(1, 4) for _ in range(64)]
    requests = [{"query": RED_CIRCLES, "images": [draw_shapes(*[("red", "circle")] * n)]} for n in counts]
    assert [answer.response for answer in engine.infer(requests)] == [str(n) for n in counts]


def test_malformed_sampling_for_all_requests_is_the_callers_error(engine: Engine) -> None:
    with pytest.raises(RequestError, match="Did you mean 'top_p'"):
        engine.infer(["hi"], {"top_pp": 0.5})


def test_another_chat_template_can_be_tried_on_the_running_model(engine: Engine, tmp_path: Path) -> None:
    shouting = tmp_path / "shouting.jinja"
    shouting.write_text("[INST] Who are you? [/INST]")
    other = with_adapter(engine, Registry.load("demo-llava", chat_template=shouting))
    assert other.infer(["What can you do?"])[0].response == "I am a small demo model."
    assert engine.infer(["What can you do?"])[0].response.startswith("I answer")
