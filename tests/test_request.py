"""Requests in every shape that the Python API accepts, and sampling parameters under either name."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm_run import Conversation, Request, Sampling
from vlm_run.errors import ConversationError, RequestError

QUESTION = Conversation.from_query("Q", images=["a.png"])
MESSAGES = [
    {"role": "user", "content": [{"type": "image", "image": "a.png"}, {"type": "text", "text": "Q"}]},
]


@pytest.mark.parametrize(
    ("value", "conversation"),
    [
        (Request(QUESTION), QUESTION),
        (QUESTION, QUESTION),
        ("Q", Conversation.from_query("Q")),
        ("<img>a.png</img>Q", Conversation.from_query("<img>a.png</img>Q")),
        ({"query": "Q", "images": ["a.png"]}, QUESTION),
        ({"query": "Q", "images": "a.png"}, QUESTION),
        (
            {"query": "Q", "history": [["Q0", "A0"]], "system": "S"},
            Conversation.from_query("Q", [["Q0", "A0"]], system="S"),
        ),
        ({"messages": MESSAGES}, Conversation.from_messages(MESSAGES)),
        (
            {"messages": [{"role": "user", "content": "<image>Q"}], "images": ["a.png"]},
            Conversation.from_query("<image>Q", images=["a.png"]),
        ),
    ],
)
def test_each_shape_of_a_request(value: Any, conversation: Conversation) -> None:
    request = Request.parse(value)
    assert request.conversation == conversation
    assert request.sampling is None


def test_a_request_may_bring_its_own_sampling() -> None:
    request = Request.parse({"query": "Q", "sampling": {"max_new_tokens": 8}})
    assert request.sampling == Sampling(max_tokens=8)


@pytest.mark.parametrize("value", [{"query": "Q", "images": ["a.png"]}, {"messages": MESSAGES}])
def test_a_request_may_bound_the_area_of_its_images(value: dict[str, Any]) -> None:
    conversation = Request.parse({**value, "min_pixels": 784, "max_pixels": 50176}).conversation
    assert conversation == QUESTION.with_pixel_bounds(784, 50176)
    assert Request.parse({**value, "min_pixels": None}).conversation == QUESTION


def test_a_request_with_a_task_needs_no_question() -> None:
    value = {"task": "ocr", "images": ["a.png"]}
    assert Request.parse(value) == Request.parse({**value, "query": ""})
    assert Request.parse(value).conversation.task == "ocr"
    assert Request.parse({"messages": MESSAGES, "task": "ocr"}).conversation.task == "ocr"
    with pytest.raises(RequestError, match="'task' must be the name of a task, not int"):
        Request.parse({**value, "task": 1})


def test_a_request_is_not_changed_by_reading_it() -> None:
    value = {"query": "Q", "sampling": {"seed": 1}}
    assert Request.parse(value) == Request.parse(value)
    assert value == {"query": "Q", "sampling": {"seed": 1}}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "the request has neither 'query' nor 'messages'"),
        ({"images": ["a.png"]}, "the request has neither 'query' nor 'messages'"),
        (7, "a request cannot be of type int. Give a question, or a mapping with 'query' or 'messages'."),
        ([MESSAGES], "a request cannot be of type list"),
        (None, "a request cannot be of type NoneType"),
    ],
)
def test_a_value_that_is_not_a_request_is_refused(value: Any, message: str) -> None:
    with pytest.raises(ConversationError) as caught:
        Request.parse(value)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"query": "Q", "image": "a.png"}, "unknown request field 'image'. Did you mean 'images'?"),
        (
            {"query": "Q", "messages": MESSAGES},
            "unknown request field 'query'. Known: messages, images, videos, sampling, lora, task.",
        ),
        ({"messages": MESSAGES, "system": "S"}, "unknown request field 'system'. "),
        (
            {"query": "Q", 7: "?"},
            "unknown request field '7'. Known: query, history, images, videos, system, sampling, lora, task.",
        ),
        (
            {"query": "Q", "sampling": {"temprature": 1}},
            "unknown sampling parameter 'temprature'. Did you mean 'temperature'?",
        ),
    ],
)
def test_an_unknown_field_is_answered_with_the_nearest(value: Any, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        Request.parse(value)
    assert str(caught.value).startswith(message)


# --- Sampling


def test_the_defaults_are_greedy() -> None:
    assert Sampling.parse(None) == Sampling(temperature=0.0, max_tokens=None)


def test_sampling_parameters_pass_as_they_are() -> None:
    sampling = Sampling(temperature=0.7)
    assert Sampling.parse(sampling) is sampling


@pytest.mark.parametrize("name", ["max_tokens", "max_new_tokens"])
def test_the_most_tokens_go_by_two_names(name: str) -> None:
    assert Sampling.parse({name: 16}).max_tokens == 16


@pytest.mark.parametrize("name", ["max_tokens", "max_new_tokens"])
def test_what_a_mapping_does_not_name_comes_from_the_defaults(name: str) -> None:
    defaults = Sampling(temperature=0.7, max_tokens=9, choice=("a",))
    own = {name: 5, "n": 2, "json_schema": {}}
    assert Sampling.parse(own, defaults) == Sampling(temperature=0.7, max_tokens=5, n=2, json_schema={})
    assert Sampling.parse(None, defaults) is defaults


def test_a_list_of_stop_strings_is_accepted() -> None:
    assert Sampling.parse({"stop": ["\n", "END"]}).stop == ("\n", "END")


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": 0},
        {"max_new_tokens": -1},
        {"temperature": -0.1},
        {"temperature": "hot"},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_k": -2},
        {"min_p": 1.5},
        {"repetition_penalty": 0.0},
        {"presence_penalty": 2.5},
        {"frequency_penalty": -2.5},
        {"seed": "today"},
    ],
)
def test_a_value_out_of_range_is_named(fields: dict[str, Any]) -> None:
    (name,) = fields
    with pytest.raises(RequestError, match=f"invalid sampling parameters: {name}: "):
        Sampling.parse(fields)


@pytest.mark.parametrize("value", [7, "hot", [("seed", 1)]])
def test_what_are_no_sampling_parameters_is_refused(value: Any) -> None:
    with pytest.raises(RequestError, match="sampling parameters"):
        Sampling.parse(value)


@pytest.mark.parametrize(
    "fields",
    [
        {"seed": 2**63},
        {"seed": -(2**63) - 1},
        {"top_k": 2**31},
        {"max_tokens": 2**63},
        {"n": 2**20},
        {"repetition_penalty": float("inf")},
        {"stop": [""]},
        {"stop": ["\ud83d"]},
        {"stop": "\ud83d"},
        {"choice": ["a", "\udce9"]},
        {"choice": [""]},
        {"json_schema": {"title": "\ud83d"}},
        {"json_schema": {"\ud83d": {}}},
        {"json_schema": {"const": b"bytes"}},
        {"json_schema": {"const": float("nan")}},
        {"json_schema": "{}"},
    ],
)
def test_what_vllm_would_not_take_is_refused_by_name(fields: dict[str, Any]) -> None:
    (name,) = fields
    with pytest.raises(RequestError, match=f"invalid sampling parameters: {name}") as caught:
        Sampling.parse(fields)
    str(caught.value).encode()


@given(
    st.sampled_from(["seed", "top_k", "max_tokens", "n", "temperature", "min_p", "repetition_penalty"]),
    st.integers() | st.integers(-(2**70), 2**70) | st.floats() | st.text() | st.booleans() | st.none(),
)
def test_every_number_that_passes_fits_into_vllms_messages(name: str, value: Any) -> None:
    try:
        sampling = Sampling.parse({name: value})
    except RequestError:
        return
    found = getattr(sampling, name)
    assert found is None or math.isfinite(found)
    assert not isinstance(found, int) or -(2**63) <= found < 2**63


def test_one_stop_string_needs_no_list() -> None:
    assert Sampling.parse({"stop": "END"}).stop == ("END",)
    assert Sampling(stop="END").stop == ("END",)  # type: ignore[arg-type]
    assert Sampling.parse({"stop": None}).stop == ()
