"""The boxes of an answer: read from its tokens where vLLM leaves out the tags, and after its reasoning."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from transformers import AutoTokenizer

from vlm_run import Box, BoxCoordinates, Conversation, Engine, ImageSize, Registry
from vlm_run.adapter import Adapter
from vlm_run.engine.answer_boxes import answer_boxes
from vlm_run.engine.other_adapter import with_adapter
from vlm_run.engine.renderer import Rendered
from vlm_run.media import load_image
from vlm_run.testing.tokenizer import write_byte_tokenizer

TAGGED = "<|object_ref_start|>cat<|object_ref_end|><|box_start|>(10,20),(30,40)<|box_end|>"
CAT = Box("cat", 20, 20, 60, 40)
NAMELESS = replace(CAT, label="")
QUESTION = Conversation.from_query("Where is the cat?", images=["cat.png"])
RENDERED = Rendered({}, 10, (5,), (ImageSize(2000, 1000, (1988, 1008)),))  # type: ignore[typeddict-item]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tokenizer with Qwen2-VL's special tokens."""
    directory: Path = tmp_path_factory.mktemp("tokenizer")
    write_byte_tokenizer(directory, Registry.load("qwen2-vl-7b-instruct").spec.control_tokens)
    return AutoTokenizer.from_pretrained(directory)


def boxes(
    tokenizer: Any,
    answer: str,
    model_type: str = "qwen2-vl-7b-instruct",
    conversation: Conversation = QUESTION,
    rendered: Rendered = RENDERED,
    stop: str | None = None,
    is_cut: bool = False,
) -> list[Box]:
    ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
    text = tokenizer.decode(ids, skip_special_tokens=True).partition(stop or "\0")[0]
    adapter = Registry.load(model_type)
    found = answer_boxes(
        adapter, tokenizer, conversation, rendered, text, token_ids=ids, stop_string=stop, is_cut=is_cut
    )
    return list(found)


def test_tags_that_vllm_leaves_out_are_read_from_the_tokens(tokenizer: Any) -> None:
    ids = tokenizer(TAGGED)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "cat(10,20),(30,40)"
    assert boxes(tokenizer, f"{TAGGED}<|im_end|>") == [CAT]


def test_what_follows_a_stop_string_is_not_part_of_the_answer(tokenizer: Any) -> None:
    assert boxes(tokenizer, f"{TAGGED} END {TAGGED}", stop="END") == [CAT]
    assert boxes(tokenizer, f"END {TAGGED}", stop="END") == []


def test_an_answer_without_tags_is_read_as_it_is(tokenizer: Any) -> None:
    assert boxes(tokenizer, '{"bbox_2d": [10, 20, 30, 40], "label": "cat"}') == [CAT]
    assert boxes(tokenizer, "It is on the sofa.") == []


def test_the_beginning_of_a_continued_answer_is_part_of_it(tokenizer: Any) -> None:
    messages = [
        {"role": "user", "content": [{"type": "image", "image": "cat.png"}]},
        {"role": "assistant", "content": '{"label": "cat", "bbox_2d": ['},
    ]
    continued = Conversation.from_messages(messages, continued=True)
    assert boxes(tokenizer, "10, 20, 30, 40]}", conversation=continued) == [CAT]


def test_without_images_or_known_coordinates_there_are_no_boxes(tokenizer: Any) -> None:
    assert boxes(tokenizer, TAGGED, rendered=replace(RENDERED, image_sizes=())) == []
    assert boxes(tokenizer, TAGGED, model_type="demo-llava") == []


def test_reasoning_that_was_cut_off_has_no_boxes(tokenizer: Any) -> None:
    model_type, draft = "qwen3-vl-8b-thinking", "Perhaps [10, 20, 30, 40]"
    assert boxes(tokenizer, f"{draft}</think>[10, 20, 30, 40]", model_type) == [NAMELESS]
    assert boxes(tokenizer, draft, model_type, is_cut=True) == []
    assert boxes(tokenizer, f"{draft}</think>[10, 20, 30, 40], [", model_type, is_cut=True) == [NAMELESS]


@pytest.fixture
def pointing(engine: Engine) -> Engine:
    """The demo model, as if it had learned to answer with boxes."""
    adapter: Adapter = Registry.load("demo-llava")
    spec = adapter.spec.model_copy(update={"box_coordinates": BoxCoordinates(maximum=1000)})
    return with_adapter(engine, replace(adapter, spec=spec))


def test_an_engines_answer_has_boxes_in_pixels_of_the_image(pointing: Engine) -> None:
    image = Image.new("RGB", (200, 100))
    image.getexif()[0x0112] = 6  # lying on its side: it is 100 pixels wide and 200 tall
    request = {"query": "Where is it?", "images": [image], "sampling": {"choice": ["[100, 200, 300, 400]"]}}
    expected = (Box("", 10, 40, 30, 80),)
    first, again = (pointing.infer([request])[0] for _ in range(2))
    *_, last = pointing.stream(request)
    assert first.response == "[100, 200, 300, 400]"
    assert last.response is not None
    # The second time the image comes from the cache of processed images.
    assert first.boxes == again.boxes == last.response.boxes == expected
    assert first.to_dict()["boxes"] == [
        {"label": "", "left": 10, "top": 40, "right": 30, "bottom": 80, "image_index": 0}
    ]
    (no_box,) = pointing.infer([{**request, "sampling": {"choice": ["no"]}}])
    assert no_box.boxes == ()
    assert "boxes" not in no_box.to_dict()


def test_boxes_are_in_pixels_of_a_jpeg_that_was_decoded_smaller(pointing: Engine) -> None:
    file = io.BytesIO()
    Image.new("RGB", (1600, 1200)).save(file, "JPEG")
    assert pointing.adapter.allows_downscaled_decode((1600, 1200), (400, 300))
    request = {
        "query": "Where is it?",
        "images": [file.getvalue()],
        "sampling": {"choice": ["[100, 200, 300, 400]"]},
    }
    assert pointing.infer([request])[0].boxes == (Box("", 160, 240, 480, 480),)


def test_boxes_on_a_page_of_a_pdf_are_in_pixels_of_the_page_as_load_image_renders_it(
    pointing: Engine,
) -> None:
    file = io.BytesIO()
    Image.new("RGB", (600, 300)).save(file, "PDF", resolution=100)  # 6 × 3 inches
    assert load_image(file.getvalue()).size == (900, 450)
    request = {
        "query": "Where is it?",
        "images": [file.getvalue()],
        "sampling": {"choice": ["[100, 200, 300, 400]"]},
    }
    assert pointing.infer([request])[0].boxes == (Box("", 90, 90, 270, 180),)
