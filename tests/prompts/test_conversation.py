"""Conversations: the rules in the module's docstring, and what each mistake is answered with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PILImage

from vlm_run import Conversation
from vlm_run.errors import ConversationError
from vlm_run.prompts.conversation import Image, Message, Text, with_media_parts


def _shape(conversation: Conversation) -> list[tuple[str, list[Any]]]:
    """Roles with text as it is and images as ["source"]."""
    return [
        (
            message.role,
            [part.text if isinstance(part, Text) else [part.source] for part in message.parts],
        )
        for message in conversation.messages
    ]


def _user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


# --- Messages


def test_text_alone() -> None:
    conversation = Conversation.from_messages(
        [{"role": "system", "content": "S"}, _user("Q1"), {"role": "assistant", "content": "A1"}, _user("Q2")]
    )
    assert _shape(conversation) == [
        ("system", ["S"]),
        ("user", ["Q1"]),
        ("assistant", ["A1"]),
        ("user", ["Q2"]),
    ]
    assert conversation.images == ()


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "a.png"}},
        {"type": "image_url", "image_url": "a.png"},
        {"type": "input_image", "image_url": "a.png"},
        {"type": "image", "image": "a.png"},
        {"type": "image", "url": "a.png"},
        {"type": "image", "path": "a.png"},
        {"type": "image", "base64": "a.png"},
    ],
)
def test_each_way_to_write_an_image_part(part: dict[str, Any]) -> None:
    assert _shape(Conversation.from_messages([_user([part])])) == [("user", [["a.png"]])]


@pytest.mark.parametrize("part", ["Q", {"type": "text", "text": "Q"}, {"type": "input_text", "text": "Q"}])
def test_each_way_to_write_a_text_part(part: Any) -> None:
    assert _shape(Conversation.from_messages([_user([part])])) == [("user", ["Q"])]


def test_parts_keep_their_order() -> None:
    content = ["Before", {"type": "image", "image": "a.png"}, "between", {"type": "image", "image": "b.png"}]
    conversation = Conversation.from_messages([_user(content)])
    assert _shape(conversation) == [("user", ["Before", ["a.png"], "between", ["b.png"]])]


@pytest.mark.parametrize("source", [b"bytes", Path("a.png"), PILImage.new("RGB", (1, 1))], ids=type)
def test_an_image_may_be_any_kind_of_source(source: Any) -> None:
    conversation = Conversation.from_messages([_user([{"type": "image", "image": source}])])
    assert conversation.images == (source,)


@pytest.mark.parametrize("source", ["https://a.example/p.png", "p.png", "data:image/png;base64,AAAA"])
def test_white_space_around_a_source_is_ignored_in_every_shape(source: str) -> None:
    pasted = f"\n {source}\t\r\n"
    image_url = [{"type": "image_url", "image_url": {"url": pasted}}]
    for conversation in (
        Conversation.from_messages([_user(image_url)]),
        Conversation.from_messages([_user([{"type": "image", "image": pasted}])]),
        Conversation.from_messages([_user("Q")], images=[pasted]),
        Conversation.from_messages([_user(f"<img>{pasted}</img>Q")]),
        Conversation.from_query("Q", images=[pasted]),
        Conversation.from_query("<image>Q", images=[pasted]),
    ):
        assert conversation.images == (source,)


def test_places_name_the_message_of_each_image() -> None:
    image = {"type": "image", "image": "a.png"}
    conversation = Conversation.from_messages(
        [_user([image]), {"role": "assistant", "content": "A"}, _user([image, image])]
    )
    assert conversation.image_places() == [(0, Image("a.png")), (2, Image("a.png")), (2, Image("a.png"))]


# --- Bounds on the area of images

BOUNDED = {"type": "image", "image": "a.png", "min_pixels": 784, "max_pixels": 50176}


@pytest.mark.parametrize(
    "part",
    [BOUNDED, {"type": "image_url", "image_url": {"url": "a.png"}, "min_pixels": 784, "max_pixels": 50176}],
    ids=["Qwen", "OpenAI"],
)
def test_an_image_part_may_bring_bounds(part: dict[str, Any]) -> None:
    conversation = Conversation.from_messages([_user([part])])
    assert conversation.image_places() == [(0, Image("a.png", 784, 50176))]
    assert conversation.template_messages()[0]["content"] == [{"type": "image"}]
    assert Conversation.from_messages(with_media_parts([_user([part])])) == conversation


def test_bounds_of_the_request_are_for_images_without_their_own() -> None:
    other = {"type": "image", "image": "b.png", "max_pixels": None}
    conversation = Conversation.from_messages([_user([BOUNDED, other])]).with_pixel_bounds(max_pixels=100)
    assert [image for _, image in conversation.image_places()] == [
        Image("a.png", 784, 50176),
        Image("b.png", None, 100),
    ]
    assert conversation.with_pixel_bounds() == conversation


@pytest.mark.parametrize("value", [0, -1, 1.5, "784", True])
def test_a_bound_that_is_not_an_area_is_refused(value: Any) -> None:
    with pytest.raises(ConversationError, match="message 1: 'max_pixels' of part 1 is not an area"):
        Conversation.from_messages([_user([{**BOUNDED, "max_pixels": value}])])
    with pytest.raises(ConversationError, match="'min_pixels' of the request is not an area"):
        Conversation.from_query("Q").with_pixel_bounds(min_pixels=value)


def test_bounds_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(
        ConversationError, match="'min_pixels' of part 1, 784, is greater than its 'max_pixels'"
    ):
        Conversation.from_messages([_user([{**BOUNDED, "max_pixels": 783}])])


def test_a_template_sees_parts_without_sources() -> None:
    conversation = Conversation.from_query("Q", images=["a.png"], system="S")
    assert conversation.template_messages() == [
        {"role": "system", "content": [{"type": "text", "text": "S"}]},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Q"}]},
    ]


# --- Tags


def test_an_img_tag_brings_its_own_source() -> None:
    conversation = Conversation.from_query("<img>a.png</img>\nWho, beside <img> b.png </img>?")
    assert _shape(conversation) == [("user", [["a.png"], "Who, beside ", ["b.png"], "?"])]


def test_an_image_tag_takes_the_next_image_of_all_turns() -> None:
    conversation = Conversation.from_query(
        "And <image> or <image>?", history=[["<image>Who?", "Me."]], images=["a.png", "b.png", "c.png"]
    )
    assert _shape(conversation) == [
        ("user", [["a.png"], "Who?"]),
        ("assistant", ["Me."]),
        ("user", ["And ", ["b.png"], " or ", ["c.png"], "?"]),
    ]


def test_one_newline_behind_a_tag_belongs_to_the_tag() -> None:
    conversation = Conversation.from_query("<image>\n\nQ\n<image>\n", images=["a.png", "b.png"])
    assert _shape(conversation) == [("user", [["a.png"], "\nQ\n", ["b.png"]])]


def test_images_that_are_none_fill_no_tag() -> None:
    conversation = Conversation.from_query("<image> and <image>", images=[None, "a.png", None, "b.png"])
    assert conversation.images == ("a.png", "b.png")


def test_both_kinds_of_tag_may_be_mixed() -> None:
    conversation = Conversation.from_query("<img>b.png</img><image>", images=["a.png"])
    assert conversation.images == ("b.png", "a.png")


def test_string_contents_of_messages_are_read_for_image_tags_only_beside_images() -> None:
    messages = [_user("<image>Who is <image>?")]
    assert _shape(Conversation.from_messages(messages)) == [("user", ["<image>Who is <image>?"])]
    assert _shape(Conversation.from_messages(messages, images=["a.png", "b.png"])) == [
        ("user", [["a.png"], "Who is ", ["b.png"], "?"])
    ]


def test_img_tags_in_string_contents_of_messages_are_always_read() -> None:
    assert Conversation.from_messages([_user("<img>a.png</img>")]).images == ("a.png",)


def test_parts_are_never_read_for_tags() -> None:
    text = "<image> <img>a.png</img>"
    conversation = Conversation.from_messages([_user([{"type": "text", "text": text}])], images=[])
    assert _shape(conversation) == [("user", [text])]


@given(
    written=st.lists(st.sampled_from(["<image>", "<img>x.png</img>", "<img>", "</img>", "a", "\n"])).map(
        "".join
    )
)
def test_tags_in_answers_and_system_messages_are_never_read(written: str) -> None:
    conversation = Conversation.from_query("Q", history=[["Q1", written]], system=written, images=["a.png"])
    assert conversation.images == ("a.png",)
    texts = ["".join(part.text for part in message.parts) for message in conversation.messages[:3:2]]  # type: ignore[union-attr]
    assert texts == [written, written]


def test_a_tag_that_is_not_closed_is_text() -> None:
    assert _shape(Conversation.from_query("<img>a.png")) == [("user", ["<img>a.png"])]


# --- Images without tags


def test_as_many_images_as_turns_are_given_to_the_turns() -> None:
    conversation = Conversation.from_query(
        "Q3", history=[["Q1", "A1"], ["Q2", "A2"]], images=["a.png", None, "c.png"]
    )
    assert _shape(conversation) == [
        ("user", [["a.png"], "Q1"]),
        ("assistant", ["A1"]),
        ("user", ["Q2"]),
        ("assistant", ["A2"]),
        ("user", [["c.png"], "Q3"]),
    ]


@pytest.mark.parametrize("images", [["a.png"], ["a.png", "b.png", "c.png"]])
def test_otherwise_all_images_go_to_the_last_turn(images: list[str]) -> None:
    conversation = Conversation.from_query("Q2", history=[["Q1", "A1"]], images=images)
    assert _shape(conversation)[0] == ("user", ["Q1"])
    assert _shape(conversation)[2] == ("user", [*([image] for image in images), "Q2"])


def test_images_of_the_list_stand_before_those_of_parts() -> None:
    conversation = Conversation.from_messages(
        [_user(["Q", {"type": "image", "image": "b.png"}])], images=["a.png"]
    )
    assert _shape(conversation) == [("user", [["a.png"], "Q", ["b.png"]])]


@pytest.mark.parametrize("source", ["a.png", b"bytes", Path("a.png"), PILImage.new("RGB", (1, 1))], ids=type)
def test_a_single_image_needs_no_list(source: Any) -> None:
    assert Conversation.from_query("Q", images=source).images == (source,)
    assert Conversation.from_messages([_user("Q")], images=source).images == (source,)


# --- Parts as other tools write them


def test_an_answer_may_be_empty_or_missing() -> None:
    for answer in ({"role": "assistant", "content": None}, {"role": "assistant"}):
        conversation = Conversation.from_messages([_user("Q1"), answer, _user("Q2")])
        assert _shape(conversation)[1] == ("assistant", [])


def test_a_refusal_is_text_and_reasoning_is_not() -> None:
    answer = [
        {"type": "thinking", "thinking": "Hm."},
        {"type": "refusal", "refusal": "No."},
        {"type": "output_text", "text": "Sorry."},
    ]
    conversation = Conversation.from_messages(
        [_user("Q1"), {"role": "assistant", "content": answer}, _user("Q2")]
    )
    assert _shape(conversation)[1] == ("assistant", ["No.", "Sorry."])


def test_a_tool_may_answer_with_an_image() -> None:
    tool = {"role": "tool", "tool_call_id": "1", "content": [{"type": "image", "image": "a.png"}]}
    conversation = Conversation.from_messages([_user("Q"), {"role": "assistant"}, tool])
    assert conversation.image_places() == [(2, Image("a.png"))]


@pytest.mark.parametrize("more", [{}, {"index": 0, "text": None}, {"image": None, "url": None}])
def test_an_image_part_without_source_stands_for_an_image_given_beside(more: dict[str, Any]) -> None:
    parts = ["Q", {"type": "image", **more}]
    assert _shape(Conversation.from_messages([_user(parts)], images=["a.png"])) == [
        ("user", ["Q", ["a.png"]])
    ]


# An object with several keys, and the one that counts.
OBJECTS = [
    ({"path": "a.png", "bytes": b"png"}, b"png"),
    ({"path": "a.png", "bytes": None}, "a.png"),
    ({"url": "http://host/a.png", "path": "a.png"}, "a.png"),
    ({"url": "http://host/a.png", "base64": "iVBORw0KGgo="}, "iVBORw0KGgo="),
    ({"url": "http://host/a.png"}, "http://host/a.png"),
]


@pytest.mark.parametrize(("image", "source"), OBJECTS)
@pytest.mark.parametrize("key", ["image", "image_url"])
def test_an_image_may_be_an_object(key: str, image: dict[str, Any], source: Any) -> None:
    conversation = Conversation.from_messages([_user([{"type": key, key: image}])])
    assert conversation.images == (source,)


@pytest.mark.parametrize(("image", "source"), OBJECTS)
def test_a_part_may_be_such_an_object_itself(image: dict[str, Any], source: Any) -> None:
    assert Conversation.from_messages([_user([{"type": "image", **image}])]).images == (source,)


def test_an_object_without_a_source_is_no_image() -> None:
    with pytest.raises(ConversationError, match="message 1: part 1 of type 'image' has no image"):
        Conversation.from_messages([_user([{"type": "image", "image": {"bytes": None, "path": None}}])])


# --- Mistakes

PNG = {"type": "image", "image": "a.png"}
ANSWER = {"role": "assistant", "content": "A"}
MISTAKES: dict[str, tuple[Any, str, int | None]] = {
    "no list": ("Q", "'messages' must be a list of messages", None),
    "one message alone": (_user("Q"), "'messages' must be a list of messages", None),
    "nothing": (None, "'messages' must be a list of messages", None),
    "a number": (7, "'messages' must be a list of messages", None),
    "no message": ([], "the conversation has no messages", None),
    "a string as a message": ([_user("Q"), "Q"], "a message needs 'role' and 'content'", 1),
    "no role": ([{"content": "Q"}], "a message needs 'role' and 'content'", 0),
    "an unknown role": (
        [{"role": "function", "content": "Q"}],
        "unknown role 'function'. Known: system, user",
        0,
    ),
    "a role that is no word": ([{"role": ["user"], "content": "Q"}], "unknown role ['user']", 0),
    "no content": ([{"role": "user"}], "'content' must be a string or a list of parts", 0),
    "bytes as content": ([_user(b"Q")], "'content' must be a string or a list of parts", 0),
    "one part alone": ([_user(PNG)], "'content' must be a string or a list of parts", 0),
    "an unknown part": (
        [_user(["Q", {"type": "audio", "audio": "a.mp3"}])],
        "part 2 has the unknown type 'audio'. Known: text, image_url, image, video_url, video.",
        0,
    ),
    "a part without type": ([_user([{"text": "Q"}])], "part 1 has no type", 0),
    "a part that is no mapping": ([_user([7])], "part 1 has no type", 0),
    "a text part without text": ([_user([{"type": "text"}])], "'text' of part 1 must be a string", 0),
    "an image part without image": (
        [_user(["Q", {"type": "image"}])],
        "part 2 of type 'image' has no image",
        0,
    ),
    "an image_url without url": (
        [_user([{"type": "image_url", "image_url": {"detail": "high"}}])],
        "part 1 of type 'image_url' has no image",
        0,
    ),
    "an image in an answer": (
        [_user("Q"), {"role": "assistant", "content": [PNG]}, _user("Q")],
        "a message of role 'assistant' cannot contain images",
        1,
    ),
    "an image in a system message": (
        [{"role": "system", "content": [PNG]}, _user("Q")],
        "a message of role 'system' cannot contain images",
        0,
    ),
    "an empty img tag": ([_user("Q"), ANSWER, _user("<img> </img>")], "an <img></img> tag names no image", 2),
    "nobody to answer": (
        [_user("Q"), ANSWER],
        "the last message is of role 'assistant'. The model answers",
        1,
    ),
}


@pytest.mark.parametrize(("messages", "cause", "message_index"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_answered_with_its_place(messages: Any, cause: str, message_index: int | None) -> None:
    with pytest.raises(ConversationError) as caught:
        Conversation.from_messages(messages)
    assert caught.value.message_index == message_index
    place = "" if message_index is None else f"message {message_index + 1}: "
    assert str(caught.value).startswith(place + cause)


def test_a_tag_without_image_is_named_with_its_message() -> None:
    with pytest.raises(ConversationError) as caught:
        Conversation.from_query("<image>Q2 <image>", history=[["<image>Q1", "A1"]], images=["a.png", "b.png"])
    assert caught.value.message_index == 2
    assert str(caught.value) == (
        "message 3: <image> tag 3 of 3 has no image: 2 given. Give one image for each tag."
    )


def test_a_tag_without_any_image_is_a_mistake_in_a_query() -> None:
    with pytest.raises(ConversationError, match="<image> tag 1 of 1 has no image: 0 given"):
        Conversation.from_query("<image>Q")


def test_an_image_without_tag_is_named_by_its_number() -> None:
    with pytest.raises(ConversationError) as caught:
        Conversation.from_query("<image>Q", images=["a.png", "b.png"])
    assert caught.value.image_index == 1
    assert str(caught.value).startswith("image 2: 2 images are given, but the text has 1 <image> tag. ")


def test_none_among_images_needs_an_entry_for_each_turn() -> None:
    with pytest.raises(ConversationError) as caught:
        Conversation.from_query("Q", images=["a.png", None])
    assert str(caught.value) == (
        "'images' has 2 entries, None among them, for 1 user turns. With None, give one entry for each turn."
    )


@pytest.mark.parametrize("turn", ["Q1", ["Q1"], ["Q1", "A1", "Q2"], ["Q1", None], [b"Q1", b"A1"], None, 7])
def test_a_history_of_anything_but_pairs_is_named_by_its_entry(turn: Any) -> None:
    with pytest.raises(ConversationError, match="entry 2 of 'history' is not a pair of query and response"):
        Conversation.from_query("Q", history=[["Q0", "A0"], turn])


@pytest.mark.parametrize("history", ["Q1", 7, {"Q1": "A1"}])
def test_a_history_that_is_not_a_list_is_refused(history: Any) -> None:
    with pytest.raises(ConversationError, match="'history' must be a list of"):
        Conversation.from_query("Q", history=history)


@pytest.mark.parametrize("query", [None, 7, b"Q"])
def test_a_query_that_is_not_text_is_refused(query: Any) -> None:
    with pytest.raises(ConversationError, match="'content' must be a string or a list of parts"):
        Conversation.from_query(query)


# --- Any conversation

TEXT = st.text(max_size=20).filter(lambda text: "<im" not in text)
SOURCE = st.from_regex(r"[a-z]{1,8}\.png", fullmatch=True)
PARTS = st.lists(TEXT.map(Text) | SOURCE.map(Image), max_size=5).map(tuple)


@st.composite
def _conversations(draw: st.DrawFn) -> Conversation:
    messages = [Message("system", (Text(draw(TEXT)),))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(0, 3))):
        messages += [Message("user", draw(PARTS)), Message("assistant", (Text(draw(TEXT)),))]
    return Conversation((*messages, Message("user", draw(PARTS))))


@given(_conversations())
def test_any_conversation_survives_being_written_as_messages(conversation: Conversation) -> None:
    written = [
        {
            "role": message.role,
            "content": [
                {"type": "text", "text": part.text}
                if isinstance(part, Text)
                else {"type": "image_url", "image_url": {"url": part.source}}
                for part in message.parts
            ],
        }
        for message in conversation.messages
    ]
    parsed = Conversation.from_messages(written)
    assert _shape(parsed) == _shape(conversation)
    assert parsed.images == conversation.images


@given(_conversations())
def test_a_template_sees_every_image_and_every_text(conversation: Conversation) -> None:
    parts = [part for message in conversation.template_messages() for part in message["content"]]
    assert sum(part["type"] == "image" for part in parts) == len(conversation.images)
    texts = [
        part.text for message in conversation.messages for part in message.parts if isinstance(part, Text)
    ]
    assert [part["text"] for part in parts if part["type"] == "text"] == texts


@given(turns=st.lists(st.lists(TEXT | SOURCE.map(lambda s: [s]), max_size=4), min_size=1, max_size=4))
def test_any_shorthand_gives_each_tag_its_image(turns: list[list[Any]]) -> None:
    """Turns with their images inside, written with `<image>` tags and a list, come out the same."""
    written = ["".join("<image>" if isinstance(part, list) else part for part in turn) for turn in turns]
    images = [part[0] for turn in turns for part in turn if isinstance(part, list)]
    conversation = Conversation.from_query(written[-1], [[query, "A"] for query in written[:-1]], images)
    assert conversation.images == tuple(images)
    of_turns = [index for index, turn in enumerate(turns) for part in turn if isinstance(part, list)]
    assert [index // 2 for index, _ in conversation.image_places()] == of_turns


@given(
    pairs=st.lists(st.tuples(TEXT, TEXT).map(list), max_size=3),
    query=TEXT,
    answer=TEXT,
    system=st.none() | TEXT,
)
def test_a_history_round_trips(pairs: list[list[str]], query: str, answer: str, system: str | None) -> None:
    conversation = Conversation.from_query(query, pairs, system=system)
    history = conversation.to_history(answer)
    assert history == [*pairs, [query, answer]]
    assert Conversation.from_query("Next?", history).to_history("Yes.") == [*history, ["Next?", "Yes."]]


# --- History


def test_a_history_keeps_tags_as_they_were_written() -> None:
    conversation = Conversation.from_query("<image>\nWho?", images=["a.png"])
    history = conversation.to_history("Me.")
    assert history == [["<image>\nWho?", "Me."]]
    again = Conversation.from_query("Sure?", history, images=["a.png"])
    assert again.image_places() == [(0, Image("a.png"))]


def test_messages_of_one_side_in_a_row_are_one_turn_of_a_history() -> None:
    messages = [_user("Q1"), _user("Q2"), ANSWER, {"role": "assistant", "content": "B"}, _user("Q3")]
    assert Conversation.from_messages(messages).to_history("C") == [["Q1\nQ2", "AB"], ["Q3", "C"]]


# --- Tools, and answers that are continued


def test_a_tools_result_may_end_the_conversation_and_keeps_its_fields() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    turns = [
        {"role": "developer", "content": "Be brief."},
        _user("Q"),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
    ]
    system, _, calling, result = Conversation.from_messages(
        turns, tools=[{"type": "function"}]
    ).template_messages()
    assert system["role"] == "system"
    assert calling == {"role": "assistant", "content": [], "tool_calls": [call]}
    assert result == {"role": "tool", "content": [{"type": "text", "text": "42"}], "tool_call_id": "c1"}


def test_only_an_answer_can_be_continued() -> None:
    assert Conversation.from_messages([_user("Q"), ANSWER], continued=True).continued
    with pytest.raises(ConversationError, match="no answer to continue: the last message is of role 'user'"):
        Conversation.from_messages([_user("Q")], continued=True)


# --- Shorthands as parts


def test_shorthands_become_parts_and_what_has_none_stays_as_it_is() -> None:
    plain = {"role": "tool", "tool_call_id": "c1", "content": "<img>x</img>", "own": 1}
    question = {"role": "user", "content": "<img>a</img>A<image>B", "name": "Ann"}
    done = with_media_parts([plain, question], ["b"])
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
    turns = [turn for question in questions for turn in (_user(question), ANSWER)][:-1]
    try:
        read = Conversation.from_messages(turns, images)
    except ConversationError as error:
        with pytest.raises(ConversationError, match=re.escape(str(error))):
            with_media_parts(turns, images)
        return
    in_parts = Conversation.from_messages(with_media_parts(turns, images))
    assert in_parts.template_messages() == read.template_messages()
    assert in_parts.image_places() == read.image_places()


def test_images_need_a_users_message() -> None:
    with pytest.raises(ConversationError, match="images are given, but there is no user message"):
        with_media_parts([{"role": "system", "content": "S"}], ["a.png"])
