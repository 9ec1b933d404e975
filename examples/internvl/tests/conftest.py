"""A checkpoint directory of InternVL3, without weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vlm_run.testing.tokenizer import write_byte_tokenizer

# As transformers' conversion script writes it.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}"
    "{% elif content['type'] == 'video' %}{{ '<video>\n' }}"
    "{% elif content['type'] == 'text' %}{{ content['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{'<|im_end|>\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{'<|im_start|>assistant\n' }}{% endif %}"
)
NAMED = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
SMALL = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1}
NORMALIZED = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


@pytest.fixture(scope="session")
def vlm_run_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("example-internvl3-1b")
    ids = write_byte_tokenizer(
        directory,
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *NAMED.values()],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=NAMED,
        chat_template=CHAT_TEMPLATE,
    )
    config = {
        "architectures": ["InternVLForConditionalGeneration"],
        "model_type": "internvl",
        "torch_dtype": "float32",
        "image_token_id": ids["<IMG_CONTEXT>"],
        "image_seq_length": 256,
        "vision_config": {"model_type": "internvl_vision", "image_size": [448, 448], **SMALL},
        "text_config": {
            "model_type": "qwen2",
            "vocab_size": 256 + len(ids),
            "max_position_embeddings": 32768,
            "num_key_value_heads": 1,
            **SMALL,
        },
    }
    square = {"height": 448, "width": 448}
    files = {
        "config.json": config,
        "processor_config.json": {"processor_class": "InternVLProcessor", "image_seq_length": 256},
        "preprocessor_config.json": {
            "image_processor_type": "GotOcr2ImageProcessorFast",
            "processor_class": "InternVLProcessor",
            "size": square,
            **NORMALIZED,
        },
        "video_preprocessor_config.json": {
            "video_processor_type": "InternVLVideoProcessor",
            "processor_class": "InternVLProcessor",
            "size": square,
            **NORMALIZED,
        },
    }
    for name, content in files.items():
        (directory / name).write_text(json.dumps(content))
    return {"example-internvl3-1b": directory}
