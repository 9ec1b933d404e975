"""LLaVA-OneVision: prompts as the hub's template renders them, specs, and worked token counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jinja2
import pytest

from vlm_run import Conversation, Limits, Registry
from vlm_run.testing.conversations import IMAGE, assistant, system, user

MODEL_TYPES = {
    "llava-onevision-qwen2-0_5b-ov": 896,
    "llava-onevision-qwen2-7b-ov": 3584,
    "llava-onevision-qwen2-72b-ov": 8192,
}


# The hub's template, worked through by hand. It is quoted in transformers' own test of the
# processor (tests/models/llava_onevision), and as long as chat_template.json on the hub, 826 bytes.
PROMPTS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "text alone": ([user("Q")], "<|im_start|>user \nQ<|im_end|><|im_start|>assistant\n"),
    "one image": ([user(IMAGE, "Q")], "<|im_start|>user <image>\nQ<|im_end|><|im_start|>assistant\n"),
    "two images": (
        [user(IMAGE, IMAGE, "Q")],
        "<|im_start|>user <image><image>\nQ<|im_end|><|im_start|>assistant\n",
    ),
    "image behind the text": (
        [user("Q", IMAGE)],
        "<|im_start|>user <image>\nQ<|im_end|><|im_start|>assistant\n",
    ),
    "two texts": (
        [user("Q1", IMAGE, "Q2")],
        "<|im_start|>user <image>\nQ1\nQ2<|im_end|><|im_start|>assistant\n",
    ),
    "history": (
        [user(IMAGE, "Q1"), assistant("A1"), user("Q2")],
        "<|im_start|>user <image>\nQ1<|im_end|><|im_start|>assistant \nA1<|im_end|>"
        "<|im_start|>user \nQ2<|im_end|><|im_start|>assistant\n",
    ),
    "system message": (
        [system("S"), user("Q")],
        "<|im_start|>system \nS<|im_end|><|im_start|>user \nQ<|im_end|><|im_start|>assistant\n",
    ),
}


@pytest.mark.parametrize("situation", PROMPTS)
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_prompt_is_that_of_the_hubs_template(model_type: str, situation: str) -> None:
    messages, expected = PROMPTS[situation]
    prompt = Registry.load(model_type).render_prompt(Conversation.from_messages(messages))
    assert prompt.text == expected
    assert prompt.literals == ()


def test_template_takes_content_that_is_a_string() -> None:
    path = Registry.load("llava-onevision-qwen2-7b-ov").spec.chat_template
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}]
    rendered = jinja2.Template(Path(path).read_text()).render(messages=messages, add_generation_prompt=True)
    assert rendered == PROMPTS["system message"][1]


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_published_config_tells_its_model_type(model_type: str, tmp_path: Path) -> None:
    config = {
        "architectures": ["LlavaOnevisionForConditionalGeneration"],
        "image_token_index": 151646,
        "text_config": {"model_type": "qwen2", "hidden_size": MODEL_TYPES[model_type]},
        "vision_config": {"model_type": "siglip_vision_model", "image_size": 384, "patch_size": 14},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert Registry.load(tmp_path).spec.model_type == model_type


# Each by hand: 729 for the thumbnail, the patches kept of the canvas, one for each of their rows.
WORKED = {
    (384, 384): 729 + 27 * 27 + 27,
    (768, 384): 729 + 27 * 54 + 27,
    (384, 768): 729 + 54 * 27 + 54,
    (640, 480): 729 + 40 * 54 + 40,  # 54 by 54 patches, of which 480 / 640 * 54 = 40.5 rows are kept
    (1152, 1152): 729 + 81 * 81 + 81,
    (2304, 2304): 729 + 81 * 81 + 81,  # 162 by 162 patches are four times nine tiles': halved
    (1153, 944): 729 + 81 * 98 + 81,  # 1.21 times nine tiles' patches is not yet scaled down
}


def test_worked_sizes() -> None:
    adapter = Registry.load("llava-onevision-qwen2-7b-ov")
    assert {size: adapter.count_image_tokens(*size) for size in WORKED} == WORKED


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_default_options(model_type: str) -> None:
    adapter = Registry.load(model_type, limits=Limits(max_images=3))
    kwargs = adapter.engine_kwargs()
    assert kwargs["limit_mm_per_prompt"] == {"image": 3, "video": 0}
    assert kwargs.get("tensor_parallel_size", 1) == (4 if "72b" in model_type else 1)
    assert 3 * adapter.count_image_tokens(1153, 944) < kwargs["max_model_len"] == adapter.spec.context_length
