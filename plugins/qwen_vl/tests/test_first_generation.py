"""Qwen-VL and Qwen-VL-Chat: listed and explained, and refused when they are started."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from vlm_run import Conversation, Registry
from vlm_run.errors import EngineError
from vlm_run.explain import explain
from vlm_run.testing.conversations import IMAGE, assistant, user

MODEL_TYPES = ["qwen-vl", "qwen-vl-chat"]
IMPORTED = """
import sys
from vlm_run import Registry, VlmRunError
try:
    Registry.load("qwen-vl-chat").engine()
except VlmRunError as error:
    print(error)
print("vllm" in sys.modules)
"""


def _prompt(model_type: str, *messages: dict[str, Any]) -> str:
    return Registry.load(model_type).render_prompt(Conversation.from_messages(messages)).text


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_starting_one_says_which_vllm_and_what_to_use(model_type: str) -> None:
    with pytest.raises(EngineError, match=r"needs vLLM <0\.24.*Use 'qwen2-vl-7b-instruct' instead"):
        Registry.load(model_type).engine()
    with pytest.raises(EngineError, match="Use 'qwen2-vl-7b-instruct'"):
        Registry.load(model_type).vllm_config()
    assert "qwen2-vl-7b-instruct" in Registry.model_types()


def test_it_is_said_before_vllm_is_imported() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True, check=True)
    refusal, imported = done.stdout.splitlines()
    assert "Use 'qwen2-vl-7b-instruct'" in refusal
    assert imported == "False"


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_an_explanation_says_so_too(model_type: str) -> None:
    said = explain(Registry.load(model_type), Conversation.from_query("Q", images=["640x480"]))
    assert "use 'qwen2-vl-7b-instruct' instead" in said.notes[0]
    assert [image.tokens for image in said.images] == [256]
    assert len(said.placeholders) == 1


def test_chats_prompt() -> None:
    # make_context of qwen_generation_utils.py and from_list_format of tokenization_qwen.py.
    system = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    ask = user(IMAGE, "Q1")
    assert _prompt("qwen-vl-chat", ask) == (
        f"{system}<|im_start|>user\nPicture 1: <img></img>\nQ1<|im_end|>\n<|im_start|>assistant\n"
    )
    answered = assistant("A1")
    again = user(IMAGE, "Q2")
    assert _prompt("qwen-vl-chat", {"role": "system", "content": "S"}, ask, answered, again) == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nPicture 1: <img></img>\nQ1<|im_end|>\n"
        "<|im_start|>assistant\nA1<|im_end|>\n<|im_start|>user\nPicture 2: <img></img>\nQ2<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_the_base_models_prompt_has_no_turns() -> None:
    assert _prompt("qwen-vl", user(IMAGE, "A caption:")) == ("Picture 1: <img></img>\nA caption:")
