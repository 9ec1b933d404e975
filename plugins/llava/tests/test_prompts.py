"""Prompts, as the hub's own chat templates render them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import pytest

from vlm_run import Conversation, Registry
from vlm_run.testing.conversations import IMAGE, assistant, system, user

VICUNA = [
    "llava1_5-7b-instruct",
    "llava1_5-13b-instruct",
    "llava1_6-vicuna-7b-instruct",
    "llava1_6-vicuna-13b-instruct",
]
MISTRAL = ["llava1_6-mistral-7b-instruct"]


CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "text alone": [user("Q")],
    "one image": [user(IMAGE, "Q")],
    "two images": [user(IMAGE, IMAGE, "Q")],
    "image behind the text": [user("Q", IMAGE)],
    "image in the first turn": [user(IMAGE, "Q1"), assistant("A1"), user("Q2")],
    "system message": [system("S"), user("Q")],
}

# chat_template.json of llava-hf/llava-1.5-7b-hf, read in copies of it (FriendliAI/llava-1.5-7b-hf,
# TitanML/llava-1.5-13b-hf); llava-hf/llava-v1.6-vicuna-13b-hf lists a file of the same size.
AS_VICUNA = {
    "text alone": "USER: Q ASSISTANT:",
    "one image": "USER: <image>\nQ ASSISTANT:",
    "two images": "USER: <image>\n<image>\nQ ASSISTANT:",
    "image behind the text": "USER: <image>\nQ ASSISTANT:",
    "image in the first turn": "USER: <image>\nQ1 ASSISTANT: A1 USER: Q2 ASSISTANT:",
    "system message": "S USER: Q ASSISTANT:",
}
# chat_template.json of llava-hf/llava-v1.6-mistral-7b-hf since its pull request 43.
AS_MISTRAL = {
    "text alone": "[INST] Q [/INST]",
    "one image": "[INST] <image>\nQ [/INST]",
    "two images": "[INST] <image>\n<image>\nQ [/INST]",
    "image behind the text": "[INST] <image>\nQ [/INST]",
    "image in the first turn": "[INST] <image>\nQ1 [/INST] A1</s> [INST] Q2 [/INST]",
    "system message": "<<SYS>>\nS\n<</SYS>>\n\n[INST] Q [/INST]",
}


def _published(model_type: str, situation: str) -> str:
    return (AS_MISTRAL if model_type in MISTRAL else AS_VICUNA)[situation]


@pytest.mark.parametrize("situation", CONVERSATIONS)
@pytest.mark.parametrize("model_type", VICUNA + MISTRAL)
def test_prompt_is_that_of_the_hubs_template(model_type: str, situation: str) -> None:
    prompt = Registry.load(model_type).render_prompt(Conversation.from_messages(CONVERSATIONS[situation]))
    assert prompt.text == _published(model_type, situation)
    assert prompt.literals == ()


@pytest.mark.parametrize("model_type", [VICUNA[0], *MISTRAL])
def test_prompt_of_the_shorthand_is_that_of_the_messages(model_type: str) -> None:
    conversation = Conversation.from_query("Q2", history=[["<image>\nQ1", "A1"]], images=["picture.png"])
    assert Registry.load(model_type).render_prompt(conversation).text == _published(
        model_type, "image in the first turn"
    )


@pytest.mark.parametrize("model_type", [VICUNA[0], *MISTRAL])
def test_an_image_token_cannot_be_put_together_from_parts(model_type: str) -> None:
    conversation = Conversation.from_messages([user("<im", "age>", IMAGE)])
    prompt = Registry.load(model_type).render_prompt(conversation)
    assert "".join(text for text, literal in prompt.pieces() if not literal).count("<image>") == 1


@pytest.mark.parametrize("model_type", [VICUNA[0], *MISTRAL])
def test_template_takes_content_that_is_a_string(model_type: str) -> None:
    template = jinja2.Template(Path(Registry.load(model_type).spec.chat_template).read_text())
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}]
    rendered = template.render(messages=messages, add_generation_prompt=True)
    assert rendered == _published(model_type, "system message")


@pytest.mark.parametrize("model_type", [VICUNA[0], *MISTRAL])
def test_vllm_serve_hands_the_template_lists_of_parts(model_type: str) -> None:
    renderer = pytest.importorskip("vllm.renderers.hf")
    template = Path(Registry.load(model_type).spec.chat_template).read_text()
    assert renderer._detect_content_format(template, default="string") == "openai"
