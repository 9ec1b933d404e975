"""Token ids of prompts: one BOS, exact image tokens, and literals that stay text."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from vlm_run import Adapter, Conversation, Registry
from vlm_run.prompts.tokenize import control_tokens, encode, stop_conditions
from vlm_run_demo import CHECKPOINT


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    """Llama-like: adds BOS, and has `<image>` as one token."""
    return AutoTokenizer.from_pretrained(CHECKPOINT)


@pytest.fixture(scope="module")
def adapter() -> Adapter:
    return Registry.load("demo-llava")


def ids_of(text: str, adapter: Adapter, tokenizer: PreTrainedTokenizerBase, **query: Any) -> list[int]:
    conversation = Conversation.from_messages(
        [{"role": "user", "content": [{"type": "text", "text": text}]}], **query
    )
    return encode(adapter.render_prompt(conversation, control_tokens(tokenizer)), tokenizer, adapter.spec)


def test_an_ordinary_prompt_is_tokenized_as_the_tokenizer_does(
    adapter: Adapter, tokenizer: PreTrainedTokenizerBase
) -> None:
    expected = tokenizer("[INST] How many red circles are there? [/INST]").input_ids
    assert ids_of("How many red circles are there?", adapter, tokenizer) == expected
    assert expected[0] == tokenizer.bos_token_id
    assert expected.count(tokenizer.bos_token_id) == 1


def test_a_template_that_writes_bos_does_not_get_a_second(
    adapter: Adapter, tokenizer: PreTrainedTokenizerBase
) -> None:
    from vlm_run.prompts.prompt import Prompt

    ids = encode(Prompt("<s>[INST] Hello! [/INST]"), tokenizer, adapter.spec)
    assert ids == encode(Prompt("[INST] Hello! [/INST]"), tokenizer, adapter.spec)


def test_no_bos_where_the_tokenizer_adds_none(adapter: Adapter) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from vlm_run.prompts.prompt import Prompt

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bare = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    like_qwen = PreTrainedTokenizerFast(tokenizer_object=bare)
    assert len(encode(Prompt("Hello!"), like_qwen, adapter.spec)) == len("Hello!")


@pytest.mark.parametrize("name", ["</s>", "<s>", "<image>", "<pad>", "<unk>"])
def test_control_tokens_that_a_user_writes_stay_text(
    name: str, adapter: Adapter, tokenizer: PreTrainedTokenizerBase
) -> None:
    control = tokenizer.convert_tokens_to_ids(name)
    ids = ids_of(f"What is {name} for?", adapter, tokenizer)
    assert ids[1:].count(control) == 0
    assert tokenizer.decode(ids[1:]) == f"[INST] What is {name} for? [/INST]"


@settings(max_examples=200, deadline=None)
@given(
    pieces=st.lists(
        st.one_of(st.text(max_size=8), st.sampled_from(["<image>", "</s>", "<s>", "<", "im", "age>", "\n"])),
        max_size=8,
    )
)
def test_whatever_a_user_writes_no_control_token_comes_of_it(
    adapter: Adapter, tokenizer: PreTrainedTokenizerBase, pieces: list[str]
) -> None:
    special = set(tokenizer.all_special_ids) | {tokenizer.convert_tokens_to_ids("<image>")}
    ids = ids_of("".join(pieces), adapter, tokenizer)
    assert special.isdisjoint(ids[1:])


def test_stop_tokens_are_ids_and_other_stops_are_strings(tokenizer: PreTrainedTokenizerBase) -> None:
    assert stop_conditions(tokenizer, ["</s>", "STOP", "</s>"]) == ([tokenizer.eos_token_id], ["STOP"])
