"""Plugins written for a test, as modules that are imported, and a checkpoint directory for them."""

from __future__ import annotations

import itertools
import json
import textwrap
from collections.abc import Callable
from pathlib import Path

import entrypoints
import pytest

from vlm_run.plugins.discovery import discover
from vlm_run.testing.subject import PluginSubject, find_plugin
from vlm_run.testing.tokenizer import write_byte_tokenizer

SPEC = """
from vlm_run import FixedResolution, Limits, ModelSpec, hookimpl
from vlm_run.errors import MediaError, RequestError

vlm_run_contract = ">=1,<2"

FACTS = dict(
    model_type="acme-7b",
    architecture="LlavaForConditionalGeneration",
    chat_template="acme.jinja",
    image_placeholder="<image>",
    vision=FixedResolution(image_size=336, patch_size=14),
    control_tokens=("<|im_start|>", "<|im_end|>"),
    stop=("<|im_end|>",),
)

@hookimpl
def model_specs():
    return [ModelSpec(**FACTS)]
"""

TEMPLATE = """
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{%- for part in message.content %}{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}
{%- endfor %}<|im_end|>
{%- endfor -%}
<|im_start|>assistant
""".strip()

# Modules of one name would be the same module.
_numbers = itertools.count(1)


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., PluginSubject]:
    """A function that makes a plugin of the source of its module, and of its template."""

    def make(source: str = "", template: str = TEMPLATE) -> PluginSubject:
        module = f"vlm_run_acme_{next(_numbers)}"
        package = tmp_path / module
        package.mkdir()
        (package / "__init__.py").write_text(SPEC + textwrap.dedent(source))
        (package / "acme.jinja").write_text(template)
        monkeypatch.syspath_prepend(str(tmp_path))
        distribution = entrypoints.Distribution("vlm-run-acme", "1.0")
        plugins = discover([entrypoints.EntryPoint("acme", module, None, distro=distribution)])
        return find_plugin("vlm-run-acme", plugins)

    return make


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA 1.5 checkpoint directory without weights, for the plugin of `SPEC` and `TEMPLATE`."""
    pytest.importorskip("tokenizers")
    directory = tmp_path_factory.mktemp("acme-7b")
    ids = write_byte_tokenizer(
        directory,
        ["<image>", "<|im_start|>", "<|im_end|>", "<pad>", "<s>"],
        bos="<s>",
        eos_token="<|im_end|>",
        pad_token="<pad>",
        chat_template=TEMPLATE,
    )
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "torch_dtype": "float32",
        "image_token_index": ids["<image>"],
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "default",
        "vision_config": {"model_type": "clip_vision_model", "image_size": 336, "patch_size": 14, **vision},
        "text_config": {
            "model_type": "llama",
            "vocab_size": 256 + len(ids),
            "max_position_embeddings": 4096,
            "num_key_value_heads": 1,
            **vision,
        },
    }
    square = {"height": 336, "width": 336}
    preprocessor = {
        "image_processor_type": "CLIPImageProcessor",
        "processor_class": "LlavaProcessor",
        "size": {"shortest_edge": 336},
        "crop_size": square,
    }
    processor = {
        "processor_class": "LlavaProcessor",
        "patch_size": 14,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
    }
    for name, content in {
        "config.json": config,
        "preprocessor_config.json": preprocessor,
        "processor_config.json": processor,
    }.items():
        (directory / name).write_text(json.dumps(content))
    return directory
