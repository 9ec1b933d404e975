"""Every architecture that vLLM and transformers both have, by a tiny checkpoint of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from vlm_run import Adapter, Registry
from vlm_run.plugins.discovery import Plugins
from vlm_run.testing.conversations import CONVERSATIONS
from vlm_run.testing.hf_checkpoint import chat_template

pytest.importorskip("vllm")

MOST_UNSERVED = 6
"""The table of architectures that are not covered may only shrink."""


@pytest.fixture(scope="module")
def adapter(architecture: str, checkpoint: Callable[[str], Path], only_auto: Plugins) -> Adapter:
    return Registry.load(checkpoint(architecture), plugins=only_auto)


def test_every_architecture_is_covered_or_listed_with_a_reason(architectures: ModuleType) -> None:
    assert architectures.candidates() - set(architectures.ARCHITECTURES) == set(architectures.UNSERVED)
    assert len(architectures.UNSERVED) <= MOST_UNSERVED
    assert len(architectures.ARCHITECTURES) >= 40


def test_those_that_need_code_of_their_own_are_vllms_and_in_no_other_table(architectures: ModuleType) -> None:
    from vllm.model_executor.models.registry import _MULTIMODAL_MODELS

    others = [architectures.ARCHITECTURES, architectures.UNSERVED, architectures.OTHER_FORMATS]
    assert architectures.REMOTE_CODE.keys() <= _MULTIMODAL_MODELS.keys()
    assert not any(architectures.REMOTE_CODE.keys() & table.keys() for table in others)


def test_the_prompt_is_that_of_the_checkpoints_processor(adapter: Adapter) -> None:
    template = chat_template(Path(adapter.source))
    assert template is not None
    for name, conversation in CONVERSATIONS.items():
        assert adapter.render_prompt(conversation).text == template(conversation), name


def test_the_prompt_has_a_placeholder_for_each_image(adapter: Adapter) -> None:
    conversation = CONVERSATIONS["images in both turns"]
    text = adapter.render_prompt(conversation).text
    assert text.count(adapter.placeholder(1)) == len(conversation.images)


def test_image_tokens_are_those_of_vllms_processor(
    adapter: Adapter, architecture: str, architectures: ModuleType
) -> None:
    from vllm import ModelRegistry

    from vlm_run.testing.vllm_processor import image_token_counts

    name = architectures.vllm_name(architecture)
    if name in ModelRegistry.models:
        # vLLM inspects a class that is not loaded in a process of its own, which takes 10 s each.
        ModelRegistry.register_model(name, ModelRegistry.models[name].load_model_cls())
    ours = [adapter.count_image_tokens(*size) for size in architectures.SIZES]
    assert ours == image_token_counts(adapter, architectures.SIZES)
