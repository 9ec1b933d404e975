"""Prompts, as the checkpoint's tokenizer renders them with the tags of the model's card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm_run import Conversation, Registry
from vlm_run.testing.conversations import IMAGE, assistant, system, user

MODEL_TYPE = "phi3-vision-128k-instruct"
MODEL_TYPES = [MODEL_TYPE, "phi3_5-vision-instruct"]


# The chat template in tokenizer_config.json of microsoft/Phi-3-vision-128k-instruct, read in copies of
# it (llama.cpp's tests), and of microsoft/Phi-3.5-vision-instruct (OpenVINO/Phi-3.5-vision-instruct-fp16-ov),
# with `<|image_1|>\n` before the text, as on the model's card.
PUBLISHED: dict[str, tuple[list[dict[str, Any]], str]] = {
    "text alone": ([user("Q")], "<|user|>\nQ<|end|>\n<|assistant|>\n"),
    "one image": ([user(IMAGE, "Q")], "<|user|>\n<|image_1|>\nQ<|end|>\n<|assistant|>\n"),
    "two images": (
        [user(IMAGE, IMAGE, "Q")],
        "<|user|>\n<|image_1|>\n<|image_2|>\nQ<|end|>\n<|assistant|>\n",
    ),
    "image behind the text": (
        [user("Q", IMAGE)],
        "<|user|>\n<|image_1|>\nQ<|end|>\n<|assistant|>\n",
    ),
    "image in the first turn": (
        [user(IMAGE, "Q1"), assistant("A1"), user("Q2")],
        "<|user|>\n<|image_1|>\nQ1<|end|>\n<|assistant|>\nA1<|end|>\n<|user|>\nQ2<|end|>\n<|assistant|>\n",
    ),
    "image in both turns": (
        [user(IMAGE, "Q1"), assistant("A1"), user(IMAGE, "Q2")],
        "<|user|>\n<|image_1|>\nQ1<|end|>\n<|assistant|>\nA1<|end|>\n"
        "<|user|>\n<|image_2|>\nQ2<|end|>\n<|assistant|>\n",
    ),
    "system message": (
        [system("S"), user("Q")],
        "<|system|>\nS<|end|>\n<|user|>\nQ<|end|>\n<|assistant|>\n",
    ),
}


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize(("messages", "published"), PUBLISHED.values(), ids=PUBLISHED)
def test_prompt_is_that_of_the_checkpoint(
    messages: list[dict[str, Any]], published: str, model_type: str
) -> None:
    prompt = Registry.load(model_type).render_prompt(Conversation.from_messages(messages))
    assert prompt.text == published
    assert prompt.literals == ()


@given(images=st.lists(st.integers(0, 4), min_size=1, max_size=5))
def test_images_are_numbered_over_the_whole_conversation(images: list[int]) -> None:
    messages: list[dict[str, Any]] = []
    for count in images:
        messages += [user(*[IMAGE] * count, "Q"), assistant("A")]
    adapter = Registry.load(MODEL_TYPE)
    prompt = adapter.render_prompt(Conversation.from_messages(messages[:-1])).text
    tags = [adapter.placeholder(number) for number in range(1, sum(images) + 1)]
    places = [prompt.index(tag) for tag in tags]
    assert places == sorted(places)
    assert prompt.count("<|image_") == sum(images)


@pytest.mark.parametrize(
    "forged", ["<|image_1|>", "<|image_7|>", "<|image|>", "<|end|>", "<|assistant|>", "<|endoftext|>", "<s>"]
)
def test_control_tokens_in_a_users_text_stay_text(forged: str) -> None:
    adapter = Registry.load(MODEL_TYPE)
    prompt = adapter.render_prompt(Conversation.from_messages([user(IMAGE, f"What is {forged}?")]))
    assert f"What is {forged}?" in prompt.text
    assert "".join(text for text, literal in prompt.pieces() if literal) == forged
    honest = adapter.render_prompt(Conversation.from_messages([user(IMAGE, "What is ?")]))
    assert "".join(text for text, literal in prompt.pieces() if not literal) == honest.text


def test_a_prompt_is_split_at_its_images_and_at_none_that_a_user_wrote() -> None:
    adapter = Registry.load(MODEL_TYPE)
    messages = [user(IMAGE, IMAGE, "Is <|image_1|> like <|image_", "2|>?")]
    parts = adapter.render_prompt(Conversation.from_messages(messages)).split(adapter.spec.image_placeholder)
    assert [part.text for part in parts] == [
        "<|user|>\n",
        "\n",
        "\nIs <|image_1|> like <|image_2|>?<|end|>\n<|assistant|>\n",
    ]


def test_template_takes_content_that_is_a_string() -> None:
    template = jinja2.Template(Path(Registry.load(MODEL_TYPE).spec.chat_template).read_text())
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}]
    rendered = template.render(messages=messages, add_generation_prompt=True)
    assert rendered == PUBLISHED["system message"][1]
