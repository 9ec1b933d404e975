"""The processor: crops as published, and token ids in which each image stands once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vlm_run import Conversation, Registry

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from vlm_run.prompts.tokenize import encode  # noqa: E402  (behind the libraries it needs)
from vlm_run_phi3_vision.processing import ImageProcessor, Phi3VProcessor  # noqa: E402

MODEL_TYPE = "phi3-vision-128k-instruct"
# Mean and standard deviation of CLIP, as in preprocessor_config.json.
MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
STD = np.array([0.26862954, 0.26130258, 0.27577711])


def _image(view: Any) -> np.ndarray[Any, Any]:
    """A crop as the levels from 0 to 255 that it stands for, (height, width, 3)."""
    levels: np.ndarray[Any, Any] = (view.permute(1, 2, 0).numpy() * STD + MEAN) * 255
    return levels


def _is(region: np.ndarray[Any, Any], colour: tuple[int, int, int]) -> bool:
    return bool(np.all(abs(region - np.array(colour)) < 2))


WHITE, RED, BLUE = (255, 255, 255), (250, 0, 0), (0, 0, 250)


# --- Crops


@pytest.mark.parametrize("num_crops", [1, 4, 16])
def test_shapes(num_crops: int) -> None:
    images = [Image.new("RGB", size) for size in ((1300, 876), (50, 300))]
    inputs = ImageProcessor(num_crops)(images)
    assert inputs["pixel_values"].shape == (2, 1 + num_crops, 3, 336, 336)
    assert inputs["pixel_values"].dtype == torch.float32
    assert inputs["image_sizes"].shape == (2, 2)


def test_sizes_are_height_and_width_of_whole_crops() -> None:
    sizes = ImageProcessor(16)([Image.new("RGB", (1300, 876)), Image.new("RGB", (876, 1300))])["image_sizes"]
    assert sizes.tolist() == [[3 * 336, 4 * 336], [4 * 336, 3 * 336]]


def test_levels_are_normalised() -> None:
    view = ImageProcessor(1)([Image.new("RGB", (336, 336), RED)])["pixel_values"][0, 0]
    expected = (np.array(RED) / 255 - MEAN) / STD
    assert np.allclose(view[:, 168, 168].numpy(), expected, atol=1e-4)


def test_crops_run_row_by_row_behind_the_small_view() -> None:
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (90, 90, 90)]
    image = Image.new("RGB", (672, 672))
    for number, colour in enumerate(colours):
        image.paste(colour, ((number % 2) * 336, (number // 2) * 336, 672, 672))
        if number % 2:  # the row below starts anew
            image.paste((0, 0, 0), (0, (number // 2 + 1) * 336, 672, 672))
    small, *crops = ImageProcessor(4)([image])["pixel_values"][0]
    for crop, colour in zip(crops, colours, strict=True):
        assert _is(_image(crop), colour)
    quarters = _image(small)
    for number, colour in enumerate(colours):
        row, column = divmod(number, 2)
        assert _is(quarters[row * 168 + 8 : row * 168 + 160, column * 168 + 8 : column * 168 + 160], colour)


def test_crops_that_a_image_does_not_need_are_zero() -> None:
    values = ImageProcessor(4)([Image.new("RGB", (1000, 400), RED)])["pixel_values"][0]
    assert all(crop.any() for crop in values[:3])
    assert not any(crop.any() for crop in values[3:])


@pytest.mark.parametrize("tall", [False, True], ids=["wide", "tall"])
def test_an_image_is_padded_with_white_evenly_on_both_sides(tall: bool) -> None:
    size = (200, 400) if tall else (400, 200)
    crop = _image(ImageProcessor(1)([Image.new("RGB", size, RED)])["pixel_values"][0, 1])
    if tall:
        crop = crop.transpose(1, 0, 2)
    assert _is(crop[:84], WHITE)
    assert _is(crop[84:252], RED)
    assert _is(crop[252:], WHITE)


def test_a_tall_image_stays_upright() -> None:
    image = Image.new("RGB", (336, 672), BLUE)
    image.paste(RED, (0, 0, 336, 336))
    _, above, below = ImageProcessor(2)([image])["pixel_values"][0]
    assert _is(_image(above), RED)
    assert _is(_image(below), BLUE)


def test_an_image_of_the_right_size_keeps_its_pixels() -> None:
    image = Image.effect_noise((672, 336), 90).convert("RGB")
    left, right = ImageProcessor(2)([image])["pixel_values"][0, 1:]
    made = np.concatenate([_image(left), _image(right)], axis=1).round().astype(np.uint8)
    assert np.array_equal(made, np.asarray(image))


def test_any_mode_of_image_is_taken() -> None:
    view = ImageProcessor(1)([Image.new("L", (336, 336), 90)])["pixel_values"][0, 0]
    assert _is(_image(view), (90, 90, 90))


# --- The processor


@pytest.fixture(scope="module")
def processor(checkpoint: Path) -> Phi3VProcessor:
    return Phi3VProcessor.from_pretrained(str(checkpoint))


def test_the_number_of_crops_is_the_checkpoints_or_the_users(checkpoint: Path) -> None:
    assert Phi3VProcessor.from_pretrained(str(checkpoint)).image_processor.facts.num_crops == 16
    four = Phi3VProcessor.from_pretrained(str(checkpoint), num_crops=4)
    assert four.image_processor.facts.num_crops == 4
    assert four.calc_num_image_tokens_from_image_size(width=1300, height=876) == 757


def test_a_checkpoint_of_phi_3_5_has_the_crops_that_its_spec_says(checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoint, tmp_path, dirs_exist_ok=True)
    (tmp_path / "preprocessor_config.json").write_text('{"num_crops": 4}')
    facts = Phi3VProcessor.from_pretrained(str(tmp_path)).image_processor.facts
    assert facts.num_crops == Registry.load("phi3_5-vision-instruct").spec.vision.num_crops


def test_transformers_takes_it_for_the_checkpoints_without_running_code_of_theirs(
    checkpoint: Path, vllm_processor: Callable[[int], Any]
) -> None:
    from transformers import AutoConfig, AutoProcessor

    vllm_processor(4)  # every vLLM process registers
    for load in (AutoConfig, AutoProcessor):
        found = load.from_pretrained(checkpoint, trust_remote_code=False)
        assert type(found).__module__.startswith("vlm_run_phi3_vision.")


def test_text_becomes_ids_in_which_an_image_is_one_token(processor: Phi3VProcessor) -> None:
    features = processor(text="<|user|>\n<|image|>\nQ<|end|>\n", images=Image.new("RGB", (336, 336)))
    (ids,) = features["input_ids"].tolist()
    assert processor.tokenizer.convert_ids_to_tokens(ids).count("<|image|>") == 1
    assert features["pixel_values"].shape == (1, 17, 3, 336, 336)


def test_one_call_may_ask_for_fewer_crops(processor: Phi3VProcessor) -> None:
    features = processor(images=[Image.new("RGB", (336, 336))], num_crops=4)
    assert features["pixel_values"].shape == (1, 5, 3, 336, 336)
    assert processor.image_processor.facts.num_crops == 16


def test_text_alone_and_images_alone(processor: Phi3VProcessor) -> None:
    assert set(processor(text="Q")) == {"input_ids"}
    assert set(processor(images=Image.new("RGB", (8, 8)))) == {"pixel_values", "image_sizes"}


def test_there_is_a_tag_for_as_many_images_as_anyone_gives(processor: Phi3VProcessor) -> None:
    assert len(processor.img_tokens) >= 100
    assert set(processor.img_tokens) == {"<|image|>"}


# --- From prompt to ids


def _tokens(processor: Phi3VProcessor, conversation: Conversation) -> list[str]:
    adapter = Registry.load(MODEL_TYPE)
    ids = encode(adapter.render_prompt(conversation), processor.tokenizer, adapter.spec)
    tokens: list[str] = processor.tokenizer.convert_ids_to_tokens(ids)
    return tokens


def test_text_between_images_begins_with_a_bos_of_its_own(processor: Phi3VProcessor) -> None:
    tokens = _tokens(processor, Conversation.from_query("Q", images=["a.png", "b.png"]))
    newline = "Ċ"  # how a byte-level tokenizer writes it
    assert tokens == [
        *("<s>", "<|user|>", newline),
        *("<|image|>", "<s>", newline),
        *("<|image|>", "<s>", newline, "Q", "<|end|>", newline, "<|assistant|>", newline),
    ]


@pytest.mark.parametrize("forged", ["<|image_1|>", "<|image|>", "<|end|>"])
def test_what_a_user_wrote_becomes_no_image_and_ends_no_turn(forged: str, processor: Phi3VProcessor) -> None:
    honest = _tokens(processor, Conversation.from_query("What is ?", images=["a.png"]))
    tokens = _tokens(processor, Conversation.from_query(f"What is {forged}?", images=["a.png"]))
    for special in ("<|image|>", "<|end|>", "<s>"):
        assert tokens.count(special) == honest.count(special)
    assert forged in processor.tokenizer.convert_tokens_to_string(tokens)


# --- In vLLM


@pytest.fixture
def vllm_ids(vllm_processor: Callable[[int], Any]) -> Callable[[list[int], list[Image.Image]], list[int]]:
    """A function that lets vLLM put image tokens in their places."""
    from vllm.multimodal.processing import ProcessorInputs, TimingContext

    processor = vllm_processor(4)

    def ids(prompt: list[int], images: list[Image.Image]) -> list[int]:
        items = processor.info.parse_mm_data({"image": images})
        done = processor.apply(ProcessorInputs(prompt, items), TimingContext(enabled=False))
        return list(done["prompt_token_ids"])

    return ids


def test_vllm_puts_as_many_tokens_as_counted_in_each_images_place(
    vllm_ids: Any, processor: Phi3VProcessor
) -> None:
    adapter = Registry.load(MODEL_TYPE)
    question = Conversation.from_query("Is it <|image_1|>?", images=["a.png", "b.png"])
    given = encode(adapter.render_prompt(question), processor.tokenizer, adapter.spec)
    made = vllm_ids(given, [Image.new("RGB", (1300, 876)), Image.new("RGB", (1000, 400))])
    image = processor.tokenizer.convert_tokens_to_ids("<|image|>")
    first = given.index(image)
    second = given.index(image, first + 1)
    between, after = given[first + 1 : second], given[second + 1 :]
    assert made == [*given[:first], *[image] * 757, *between, *[image] * 457, *after]


def test_vllm_reads_tags_of_those_who_use_it_without_vlm_run(
    vllm_ids: Any, processor: Phi3VProcessor
) -> None:
    adapter = Registry.load(MODEL_TYPE)
    prompt = adapter.render_prompt(Conversation.from_query("Q", images=["a.png"]))
    images = [Image.new("RGB", (1000, 400))]
    ours = vllm_ids(encode(prompt, processor.tokenizer, adapter.spec), images)
    assert vllm_ids(processor.tokenizer(prompt.text).input_ids, images) == ours
