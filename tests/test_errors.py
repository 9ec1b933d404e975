"""Errors read as a sentence: where, what, and what to do."""

from __future__ import annotations

from typing import Any

import pytest

from vlm_run import VlmRunError, errors
from vlm_run.errors import ConversationError, EngineError, MediaError, RequestError


def test_an_error_is_its_cause() -> None:
    assert str(EngineError("the engine has died")) == "the engine has died"


def test_a_hint_follows_as_a_sentence() -> None:
    error = EngineError("the engine has died", hint="Start it again.")
    assert str(error) == "the engine has died. Start it again."
    assert (error.cause, error.hint) == ("the engine has died", "Start it again.")


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ({}, "it is damaged"),
        ({"message_index": 0}, "message 1: it is damaged"),
        ({"image_index": 2}, "image 3: it is damaged"),
        ({"message_index": 4, "image_index": 0}, "message 5, image 1: it is damaged"),
    ],
)
def test_a_place_is_named_from_one_on(place: dict[str, Any], text: str) -> None:
    error = MediaError("it is damaged", **place)
    assert str(error) == text
    assert error.message_index == place.get("message_index")
    assert error.image_index == place.get("image_index")


def test_place_cause_and_hint_together() -> None:
    error = ConversationError("it has no image", hint="Give one.", message_index=1)
    assert str(error) == "message 2: it has no image. Give one."


@pytest.mark.parametrize(
    "name",
    ["UnknownModelError", "PluginError", "RequestError", "EngineError"],
)
def test_one_base_class_catches_all(name: str) -> None:
    assert issubclass(getattr(errors, name), VlmRunError)


@pytest.mark.parametrize("name", ["ConversationError", "MediaError", "TemplateError", "ContextOverflowError"])
def test_what_costs_one_request_alone_is_a_request_error(name: str) -> None:
    assert issubclass(getattr(errors, name), RequestError)


@pytest.mark.parametrize("name", ["UnknownModelError", "PluginError", "EngineError"])
def test_what_concerns_more_than_one_request_is_none(name: str) -> None:
    assert not issubclass(getattr(errors, name), RequestError)
