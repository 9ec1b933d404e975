"""The field `task` of a chat completion, as it is read and as the server answers it."""

from __future__ import annotations

from typing import Any

import pytest

from vlm_run.prompts.conversation import Conversation
from vlm_run.server.chat_endpoint import ChatRequest
from vlm_run.server.chat_renderer import _conversation

from .conftest import Server, base64_of, draw

MESSAGES = [{"role": "user", "content": "Title?"}]
IMAGE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64_of(draw(1))}"}}


def rendered(**fields: Any) -> Conversation:
    """The conversation of a request, by the parameters that vLLM hands to the renderer."""
    request = ChatRequest.model_validate({"model": "m", "messages": MESSAGES, **fields})
    return _conversation(request.messages, request.build_chat_params(None, "auto"))


def test_a_request_names_its_task() -> None:
    assert rendered(task="ocr").task == "ocr"
    assert rendered(task="ocr", chat_template_kwargs={"enable_thinking": False}).task == "ocr"
    assert rendered().task is None


@pytest.mark.parametrize("task", [7, ["ocr"]])
def test_a_task_that_is_no_name_is_refused(task: Any) -> None:
    with pytest.raises(Exception, match="'task' must be the name of a task, not"):
        rendered(task=task)


@pytest.mark.parametrize("task", [7, ["ocr"]])
def test_a_value_in_the_templates_variables_is_a_name_or_nothing(task: Any) -> None:
    assert rendered(chat_template_kwargs={"vlm_run_task": task}).task is None


def test_variables_of_the_template_are_those_that_the_client_gave() -> None:
    assert rendered().template_kwargs == {}
    assert rendered(tools=None, chat_template_kwargs={"a": 1}, task="ocr").template_kwargs == {"a": 1}
    assert rendered(reasoning_effort="none").template_kwargs["enable_thinking"] is False


def test_the_server_answers_a_task_as_its_text(server: Server) -> None:
    """`draw` paints four shapes."""
    assert (
        server.ask([IMAGE], task="count")
        == server.ask("<image>How many shapes are there?", images=[base64_of(draw(1))])
        == "4"
    )


def test_variables_that_the_template_does_not_use_have_no_effect(server: Server) -> None:
    variables = {"enable_thinking": False, "messages": [], "bos_token": "</s>"}
    assert server.ask([IMAGE], task="count", chat_template_kwargs=variables) == "4"


def test_the_server_names_the_models_tasks(server: Server) -> None:
    assert server.http.get("/v1/adapter").json()["tasks"] == {"count": "How many shapes are there?"}
    assert server.refusal([IMAGE], task="ocr") == "'demo-llava' has no task 'ocr'. Its tasks: count."
    assert server.refusal([IMAGE], task=7) == "'task' must be the name of a task, not int"
