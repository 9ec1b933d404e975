"""DeepSeek-OCR: prompts of its tasks, image tokens as vLLM's own, and the logits processor's arguments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm_run import Conversation, Limits, Registry, Request, TemplateError
from vlm_run.testing.conversations import IMAGE, assistant, user

MODEL_TYPE = "deepseek-ocr"
BOS = "<｜begin▁of▁sentence｜>"


@pytest.mark.parametrize(
    ("task", "text"),
    [("ocr", "Free OCR."), ("markdown", "<|grounding|>Convert the document to markdown.")],
)
def test_a_task_is_the_line_after_the_image(task: str, text: str) -> None:
    conversation = Request.parse({"task": task, "images": ["page.png"]}).conversation
    assert Registry.load(MODEL_TYPE).render_prompt(conversation).text == f"{BOS}<image>\n{text}"


def test_a_history_is_refused() -> None:
    conversation = Conversation.from_messages([user(IMAGE, "Q1"), assistant("A1"), user("Q2")])
    with pytest.raises(TemplateError, match="one message without a history"):
        Registry.load(MODEL_TYPE).render_prompt(conversation)


def test_image_tokens_are_those_of_vllms_processor(
    checkpoint: Callable[[str], Path], vllm_image_tokens: Any
) -> None:
    limits = Limits(max_model_len=4096)
    adapter = Registry.load(MODEL_TYPE, checkpoint=checkpoint(MODEL_TYPE), limits=limits)
    sizes = [(640, 640), (641, 640), (1000, 400), (1920, 1080), (100, 2000), (20, 900)]
    counts = [273, 693, 483, 483, 933, 933]
    assert vllm_image_tokens(adapter, sizes) == counts
    assert [adapter.count_image_tokens(*size) for size in sizes] == counts
    assert adapter.largest_image() == ((640, 3840), 933)


@given(st.integers(1, 4000), st.integers(641, 4000))
def test_tiles_are_vllms_own(width: int, height: int) -> None:
    from vllm.transformers_utils.processors.deepseek_ocr import count_tiles

    vision = Registry.load(MODEL_TYPE).spec.vision
    assert vision is not None
    columns, rows = count_tiles(width, height)
    assert vision.resized(width, height) == (640 * columns, 640 * rows)


def test_every_request_has_the_arguments_of_the_logits_processor() -> None:
    from vllm import SamplingParams
    from vllm.model_executor.models.deepseek_ocr import NGramPerReqLogitsProcessor

    from vlm_run.engine.sampling import with_model_params

    spec = Registry.load(MODEL_TYPE).spec
    (named,) = spec.engine_kwargs["logits_processors"]
    assert named == f"{NGramPerReqLogitsProcessor.__module__}:{NGramPerReqLogitsProcessor.__name__}"
    params = with_model_params(SamplingParams(), spec.sampling_params)
    assert params.skip_special_tokens is False
    NGramPerReqLogitsProcessor.validate_params(params)
    processor = NGramPerReqLogitsProcessor.__new__(NGramPerReqLogitsProcessor).new_req_logits_processor(
        params
    )
    assert (processor.ngram_size, processor.window_size) == (30, 90)
    assert processor.whitelist_token_ids == {128821, 128822}


def test_boxes_of_an_answer() -> None:
    adapter = Registry.load(MODEL_TYPE)
    answer = "<|ref|>title<|/ref|><|det|>[[0, 333, 999, 666]]<|/det|>\n# Annual report"
    (box,) = adapter.parse_boxes(answer, [adapter.image_size(900, 600)])
    assert (box.label, box.edges) == ("title", (0, 200, 900, 400))
