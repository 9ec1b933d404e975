"""LLaVA-NeXT on Yi, Llama 3 and Qwen 1.5: prompts as the hub's templates render them, and specs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jinja2
import pytest

from vlm_run import Conversation, Registry
from vlm_run.testing.conversations import IMAGE, assistant, system, user

MODEL_TYPES = [
    "llava1_6-yi-34b-instruct",
    "llama3-llava-next-8b-hf",
    "llava-next-72b-hf",
    "llava-next-110b-hf",
]


CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "text alone": [user("Q")],
    "one image": [user(IMAGE, "Q")],
    "two images": [user(IMAGE, IMAGE, "Q")],
    "image behind the text": [user("Q", IMAGE)],
    "two texts": [user("Q1", IMAGE, "Q2")],
    "history": [user(IMAGE, "Q1"), assistant("A1"), user("Q2")],
    "system message": [system("S"), user("Q")],
}

# chat_template.json of llava-hf/llava-v1.6-34b-hf at ccd5c91, worked through by hand.
AS_YI = {
    "text alone": "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n",
    "one image": "<|im_start|>user\n<image>\nQ<|im_end|>\n<|im_start|>assistant\n",
    "two images": "<|im_start|>user\n<image>\n<image>\nQ<|im_end|>\n<|im_start|>assistant\n",
    "image behind the text": "<|im_start|>user\n<image>\nQ<|im_end|>\n<|im_start|>assistant\n",
    "two texts": "<|im_start|>user\n<image>\nQ1Q2<|im_end|>\n<|im_start|>assistant\n",
    "history": (
        "<|im_start|>user\n<image>\nQ1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n"
        "<|im_start|>user\nQ2<|im_end|>\n<|im_start|>assistant\n"
    ),
    "system message": (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"
    ),
}
# chat_template.json of llava-hf/llama3-llava-next-8b-hf at 91abc33, worked through by hand.
_ASSISTANT = "<|start_header_id|>assistant<|end_header_id|>\n\n"
_USER = "<|start_header_id|>user<|end_header_id|>\n\n"
AS_LLAMA3 = {
    "text alone": f"{_USER}\nQ<|eot_id|>{_ASSISTANT}",
    "one image": f"{_USER}<image>\nQ<|eot_id|>{_ASSISTANT}",
    "two images": f"{_USER}<image><image>\nQ<|eot_id|>{_ASSISTANT}",
    "image behind the text": f"{_USER}<image>\nQ<|eot_id|>{_ASSISTANT}",
    "two texts": f"{_USER}<image>\nQ1<|eot_id|>\nQ2<|eot_id|>{_ASSISTANT}",
    "history": f"{_USER}<image>\nQ1<|eot_id|>{_ASSISTANT}\nA1<|eot_id|>{_USER}\nQ2<|eot_id|>{_ASSISTANT}",
    "system message": (
        f"<|start_header_id|>system<|end_header_id|>\n\n\nS<|eot_id|>{_USER}\nQ<|eot_id|>{_ASSISTANT}"
    ),
}
# chat_template.json of llava-hf/llava-next-72b-hf at f3d14fa, worked through by hand.
AS_QWEN = {
    "text alone": "<|im_start|>user\n\nQ<|im_end|>\n<|im_start|>assistant\n",
    "one image": "<|im_start|>user\n<image>\nQ<|im_end|>\n<|im_start|>assistant\n",
    "two images": "<|im_start|>user\n<image><image>\nQ<|im_end|>\n<|im_start|>assistant\n",
    "image behind the text": "<|im_start|>user\n<image>\nQ<|im_end|>\n<|im_start|>assistant\n",
    "two texts": "<|im_start|>user\n<image>\nQ1\nQ2<|im_end|>\n<|im_start|>assistant\n",
    "history": (
        "<|im_start|>user\n<image>\nQ1<|im_end|>\n<|im_start|>assistant\n\nA1<|im_end|>\n"
        "<|im_start|>user\n\nQ2<|im_end|>\n<|im_start|>assistant\n"
    ),
    "system message": (
        "<|im_start|>system\n\nS<|im_end|>\n<|im_start|>user\n\nQ<|im_end|>\n<|im_start|>assistant\n"
    ),
}
EXPECTED = {
    "llava1_6-yi-34b-instruct": AS_YI,
    "llama3-llava-next-8b-hf": AS_LLAMA3,
    "llava-next-72b-hf": AS_QWEN,
    "llava-next-110b-hf": AS_QWEN,
}


@pytest.mark.parametrize("situation", CONVERSATIONS)
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_prompt_is_that_of_the_hubs_template(model_type: str, situation: str) -> None:
    prompt = Registry.load(model_type).render_prompt(Conversation.from_messages(CONVERSATIONS[situation]))
    assert prompt.text == EXPECTED[model_type][situation]
    assert prompt.literals == ()


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_template_takes_content_that_is_a_string(model_type: str) -> None:
    template = jinja2.Template(Path(Registry.load(model_type).spec.chat_template).read_text())
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}]
    rendered = template.render(messages=messages, add_generation_prompt=True)
    assert rendered == EXPECTED[model_type]["system message"]


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_an_answer_ends_at_control_tokens(model_type: str) -> None:
    spec = Registry.load(model_type).spec
    assert set(spec.stop) <= set(spec.control_tokens)


VISION = {
    "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
    "vision_config": {"model_type": "clip_vision_model", "image_size": 336, "patch_size": 14},
}
# From config.json of each; the 72B one's language model is Qwen/Qwen1.5-72B-Chat.
TEXT_CONFIGS: dict[str, dict[str, Any]] = {
    "llava1_6-yi-34b-instruct": {"model_type": "llama", "hidden_size": 7168, "vocab_size": 64064},
    "llama3-llava-next-8b-hf": {"model_type": "llama", "vocab_size": 128320},  # no hidden_size
    "llava-next-72b-hf": {"model_type": "qwen2", "hidden_size": 8192, "intermediate_size": 24576},
    "llava-next-110b-hf": {"model_type": "qwen2", "hidden_size": 8192, "intermediate_size": 49152},
    "llava1_6-vicuna-13b-instruct": {"model_type": "llama", "hidden_size": 5120, "vocab_size": 32064},
    "llava1_6-mistral-7b-instruct": {"model_type": "mistral", "vocab_size": 32064},
}


@pytest.mark.parametrize("model_type", TEXT_CONFIGS)
def test_a_published_config_tells_its_model_type(model_type: str, tmp_path: Path) -> None:
    architectures = ["LlavaNextForConditionalGeneration"]
    config = {"architectures": architectures, "text_config": TEXT_CONFIGS[model_type], **VISION}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert Registry.load(tmp_path).spec.model_type == model_type


# Divides the heads of each language model, and leaves room beside 16-bit weights on 80 GB.
GPUS = dict(zip(MODEL_TYPES, [2, 1, 4, 4], strict=True))


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_default_options_start_on_80_gb_and_fit_the_largest_image(model_type: str) -> None:
    adapter = Registry.load(model_type)
    kwargs = adapter.engine_kwargs()
    assert kwargs.get("tensor_parallel_size", 1) == GPUS[model_type]
    assert adapter.count_image_tokens(3000, 3000) == 2928  # as on Vicuna and Mistral
    assert 2928 < kwargs["max_model_len"] <= adapter.spec.context_length
