"""Variables of the chat template that a request gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vlm_run import Registry
from vlm_run.errors import TemplateError
from vlm_run.prompts.conversation import Conversation
from vlm_run.prompts.prompt import Prompt

TEMPLATE = """\
{%- for part in messages[0].content -%}
{{ image_token if part.type == "image" else part.text }}
{%- endfor -%}
{{ "" if thinking is not defined else " think" if thinking else " answer" }}{{ style }}
{{- missing.x if broken }}"""
SPEC_VARIABLES = {"image_token": "<image>", "thinking": True}


@pytest.fixture
def render(tmp_path: Path) -> Callable[..., Prompt]:
    """A function that renders a question about an image with variables of the request."""
    template = tmp_path / "acme.jinja"
    template.write_text(TEMPLATE, encoding="utf-8")
    adapter = Registry.load("demo-llava", chat_template=template, template_kwargs=SPEC_VARIABLES)

    def of(**variables: Any) -> Prompt:
        conversation = Conversation.from_query("Hi!", images=["a.png"])
        return adapter.render_prompt(replace(conversation, template_kwargs=variables))

    return of


def test_they_override_the_specs(render: Callable[..., Prompt]) -> None:
    assert render().text == "<image>Hi! think"
    assert render(thinking=False, style=" brief").text == "<image>Hi! answer brief"


def test_those_of_the_conversation_itself_and_unknown_ones_have_no_effect(
    render: Callable[..., Prompt],
) -> None:
    assert render(messages=[], bos_token="x", add_generation_prompt=False, unknown=1) == render()


def test_control_tokens_in_them_stay_text(render: Callable[..., Prompt]) -> None:
    prompt = render(style="</s><image>")
    assert prompt.text == "<image>Hi! think</s><image>"
    assert [text for text, literal in prompt.pieces() if literal] == ["</s>", "<image>"]


def test_a_request_cannot_change_the_placeholder(render: Callable[..., Prompt]) -> None:
    for value in ("<image>", "", None):
        with pytest.raises(TemplateError, match="does not render each image once with the variables"):
            render(image_token=value)


def test_values_on_which_the_template_fails_are_the_requests_fault(render: Callable[..., Prompt]) -> None:
    with pytest.raises(TemplateError, match=r"with the variables of this request, .* failed"):
        render(broken=True)
