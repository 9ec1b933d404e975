"""Mistral's models: prompts, token ids and rows of image tokens as mistral-common's and vLLM's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm_run import Conversation, Limits, Registry, TemplateError
from vlm_run.prompts import chat_template
from vlm_run.prompts.tokenize import control_tokens, encode
from vlm_run.testing.conversations import CONVERSATIONS, IMAGE, assistant, system, user
from vlm_run_mistral_vl.vision import Rows

pytest.importorskip("mistral_common")

PIXTRAL, SMALL = "pixtral-12b-2409", "mistral-small-3_1-24b-instruct-2503"
MODEL_TYPES = [PIXTRAL, SMALL]
MORE = {
    "text before its image": [user("Q", IMAGE)],
    "texts that follow each other": [user("Q1", "Q2", IMAGE, "Q3", "Q4")],
    "system message and history": [system("S"), user("Q1", IMAGE), assistant("A1"), user(IMAGE, "Q2")],
}


@pytest.fixture(scope="module")
def mistral_commons_template(checkpoint: Callable[[str], Path], tmp_path_factory: Any) -> Any:
    """A function that gives the chat template that mistral-common writes for a model type's tokenizer."""
    from mistral_common.integrations.chat_templates.chat_templates import convert_tokenizer_to_chat_template

    def write(model_type: str) -> Path:
        file: Path = tmp_path_factory.mktemp(model_type) / "template.jinja"
        file.write_text(convert_tokenizer_to_chat_template(checkpoint(model_type) / "tekken.json"))
        return file

    return write


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_prompts_are_those_of_mistral_common(model_type: str, mistral_commons_template: Any) -> None:
    template, adapter = mistral_commons_template(model_type), Registry.load(model_type)
    more = {name: Conversation.from_messages(messages) for name, messages in MORE.items()}
    for name, conversation in {**CONVERSATIONS, **more}.items():
        messages = conversation.template_messages()
        theirs = chat_template.render(template, messages, bos_token="<s>", eos_token="</s>")
        assert adapter.render_prompt(conversation).text == theirs, name


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_what_the_templates_do_not_render_is_refused(model_type: str) -> None:
    adapter = Registry.load(model_type)
    with pytest.raises(TemplateError, match="must not follow each other"):
        adapter.render_prompt(Conversation.from_messages([user("Q1"), user("Q2")]))
    with pytest.raises(TemplateError, match="tools"):
        adapter.render_prompt(Conversation.from_messages([user("Q")], tools=[{"type": "function"}]))


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_token_ids_are_those_of_mistral_common(model_type: str, checkpoint: Callable[[str], Path]) -> None:
    from mistral_common.protocol.instruct.messages import UserMessage
    from mistral_common.protocol.instruct.request import ChatCompletionRequest
    from vllm.tokenizers.mistral import MistralTokenizer

    text = "Is [INST] or </s> a\n\ntoken in “this” text?"
    tokenizer, adapter = MistralTokenizer.from_pretrained(checkpoint(model_type)), Registry.load(model_type)
    request: Any = ChatCompletionRequest(messages=[UserMessage(content=text)])
    prompt = adapter.render_prompt(Conversation.from_query(text), control_tokens(tokenizer))
    assert encode(prompt, tokenizer, adapter.spec) == tokenizer.mistral.encode_chat_completion(request).tokens


SIZES = [(336, 336), (1000, 400), (1920, 1080), (60, 1000), (1600, 1600), (3, 600), (1, 1)]
COUNTS = {
    PIXTRAL: [462, 1600, 2340, 315, 4160, 76, 2],
    SMALL: [156, 555, 1736, 144, 3080, 44, 2],
}


@pytest.mark.parametrize(("model_type", "counts"), COUNTS.items())
def test_image_tokens_are_those_of_vllms_processor(
    model_type: str, counts: list[int], checkpoint: Callable[[str], Path], vllm_image_tokens: Any
) -> None:
    limits = Limits(max_model_len=16384)
    adapter = Registry.load(model_type, checkpoint=checkpoint(model_type), limits=limits)
    assert vllm_image_tokens(adapter, SIZES) == counts
    assert [adapter.count_image_tokens(*size) for size in SIZES] == counts
    assert adapter.largest_image() == ((adapter.spec.vision.max_image_size,) * 2, max(counts))


def test_the_settings_of_the_tokenizer_hold_whatever_the_engines_options() -> None:
    adapter = Registry.load(PIXTRAL)
    other = adapter.with_engine_kwargs({"mm_processor_kwargs": {"max_image_size": 512}})
    assert other.count_image_tokens(1024, 1024) == adapter.count_image_tokens(1024, 1024) == 4160


@given(st.integers(1, 4000), st.integers(1, 4000), st.sampled_from([(16, 1024, 1), (14, 1540, 2)]))
def test_rows_are_those_of_mistral_common(width: int, height: int, settings: tuple[int, int, int]) -> None:
    from types import SimpleNamespace

    from mistral_common.tokens.tokenizers.image import ImageConfig, ImageEncoder

    encoder = ImageEncoder.__new__(ImageEncoder)
    encoder.image_config = ImageConfig(*settings)
    patch, largest, merge = settings
    columns, rows = encoder._image_to_num_tokens(SimpleNamespace(size=(width, height)))
    facts = Rows(image_patch_size=patch, max_image_size=largest, spatial_merge_size=merge)
    assert facts.count_image_tokens(width, height) == rows * (columns + 1)


def test_the_repository_is_found_by_its_name() -> None:
    assert Registry.load("mistralai/Pixtral-12B-2409").spec.model_type == PIXTRAL
