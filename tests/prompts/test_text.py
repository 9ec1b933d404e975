"""Text that no tokenizer takes is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm_run import Conversation
from vlm_run.errors import ConversationError
from vlm_run.prompts.text import check_encodable

JSON = st.recursive(
    st.text(st.characters()) | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters()), inner, max_size=3),
    max_leaves=6,
)


def encodable(value: Any) -> bool:
    if isinstance(value, dict):
        return all(encodable(key) and encodable(inner) for key, inner in value.items())
    if isinstance(value, list):
        return all(map(encodable, value))
    return not isinstance(value, str) or not any("\ud800" <= character <= "\udfff" for character in value)


@given(JSON)
def test_what_can_be_encoded_passes_and_nothing_else(value: Any) -> None:
    if encodable(value):
        check_encodable(value, "the value")
    else:
        with pytest.raises(ConversationError, match="the value has"):
            check_encodable(value, "the value")


HALF = "\ud83d"


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([{"role": "user", "content": f"a{HALF}"}], "message 1: the text has half a character, the lone"),
        (
            [{"role": "system", "content": HALF}, {"role": "user", "content": "q"}],
            "message 1: the text has half a character, the lone surrogate U+D83D, at character 1. Cut",
        ),
        (
            [{"role": "user", "content": "q"}, {"role": "assistant", "content": HALF}],
            "message 2: the text has half",
        ),
        ([{"role": "user", "content": ["q", HALF]}], "message 1: the text"),
        ([{"role": "user", "content": [{"type": "text", "text": HALF}]}], "message 1: the text"),
        ([{"role": "user", "content": "q", "name": HALF}], "message 1: 'name' has half"),
        (
            [{"role": "assistant", "tool_calls": [{"function": {"arguments": HALF}}]}],
            "message 1: 'tool_calls' has half",
        ),
        ([{"role": "user", "content": "caf\udce9"}], "message 1: the text has the byte 0xE9 at character 4"),
    ],
)
def test_a_message_is_named(messages: list[dict[str, Any]], says: str) -> None:
    with pytest.raises(ConversationError) as caught:
        Conversation.from_messages(messages)
    assert str(caught.value).startswith(says)


def test_tools_are_named() -> None:
    with pytest.raises(ConversationError, match="'tools' has half a character"):
        Conversation.from_messages([{"role": "user", "content": "q"}], tools=[{"name": {HALF: 1}}])
