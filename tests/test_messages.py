"""Shorthands for images in messages become parts of OpenAI's shape."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm_run import Conversation
from vlm_run.errors import ConversationError
from vlm_run.messages import with_image_parts

TEXT = st.text(max_size=20).filter(lambda text: "<im" not in text)


def test_shorthands_become_parts_and_what_has_none_stays_as_it_is() -> None:
    plain = {"role": "tool", "tool_call_id": "c1", "content": "<img>x</img>", "own": 1}
    question = {"role": "user", "content": "<img>a</img>A<image>B", "name": "Ann"}
    done = with_image_parts([plain, question], ["b"])
    assert done[0] == plain
    a, b = ({"type": "image_url", "image_url": {"url": url}} for url in "ab")
    text_a, text_b = ({"type": "text", "text": text} for text in "AB")
    assert done[1] == {"role": "user", "content": [a, text_a, b, text_b], "name": "Ann"}


@given(
    questions=st.lists(TEXT, min_size=1, max_size=3),
    images=st.lists(st.none() | st.just("a.png"), max_size=3),
)
def test_parts_hold_the_conversation_that_the_shorthands_stood_for(
    questions: list[str], images: list[str | None]
) -> None:
    turns = [
        turn
        for question in questions
        for turn in ({"role": "user", "content": question}, {"role": "assistant", "content": "A"})
    ][:-1]
    try:
        read = Conversation.from_messages(turns, images)
    except ConversationError as error:
        with pytest.raises(ConversationError, match=re.escape(str(error))):
            with_image_parts(turns, images)
        return
    in_parts = Conversation.from_messages(with_image_parts(turns, images))
    assert in_parts.template_messages() == read.template_messages()
    assert in_parts.image_places() == read.image_places()


def test_images_need_a_users_message() -> None:
    with pytest.raises(ConversationError, match="images are given, but no message of a user"):
        with_image_parts([{"role": "system", "content": "S"}], ["a.png"])
