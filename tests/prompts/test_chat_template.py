"""Chat templates: transformers' dialect, a sandbox, and errors that name the file."""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import pytest

from vlm_run import Registry
from vlm_run.errors import PluginError, TemplateError
from vlm_run.prompts.chat_template import render
from vlm_run.testing.conversations import CONVERSATIONS

HELLO: list[dict[str, Any]] = [{"role": "user", "content": [{"type": "text", "text": "Hello <&> 'Bär'"}]}]


@pytest.fixture
def template(tmp_path: Path) -> Callable[[str], Path]:
    """A function that writes a template file."""

    def write(text: str) -> Path:
        path = tmp_path / "acme.jinja"
        path.write_text(text, encoding="utf-8")
        return path

    return write


Write = Callable[[str], Path]

# --- The dialect

DIALECT = {
    "text is not escaped": ("{{ messages[0].content[0].text }}", "Hello <&> 'Bär'"),
    "special tokens": ("{{ bos_token }}|{{ eos_token }}", "<s>|</s>"),
    "a generation prompt is asked for": ("{% if add_generation_prompt %}ASSISTANT:{% endif %}", "ASSISTANT:"),
    "there are no tools": ("{{ tools is none }} {{ documents is none }}", "True True"),
    "what is not given is undefined": ("{{ add_vision_id is defined }}{{ add_vision_id }}", "False"),
    "blocks take their lines with them": ("a\n  {% if true %}\nb\n  {% endif %}\nc", "a\nb\nc"),
    "a line's end stays behind an expression": ("{{ 'a' }}\nb", "a\nb"),
    "the last newline is dropped": ("a\n", "a"),
    "break": ("{% for i in [1, 2, 3] %}{{ i }}{% if i == 2 %}{% break %}{% endif %}{% endfor %}", "12"),
    "continue": (
        "{% for i in [1, 2, 3] %}{% if i == 2 %}{% continue %}{% endif %}{{ i }}{% endfor %}",
        "13",
    ),
    "namespaces": (
        "{% set n = namespace(i=0) %}{% for m in [1, 2] %}{% set n.i = n.i + m %}{% endfor %}{{ n.i }}",
        "3",
    ),
    "tojson keeps letters and signs": ("{{ {'a': '<ä>'} | tojson }}", '{"a": "<ä>"}'),
    "tojson may indent": ("{{ [1] | tojson(indent=2) }}", "[\n  1\n]"),
    "answers marked for training": ("{% generation %}A{% endgeneration %}B", "AB"),
    "methods of strings": ("{{ ' a '.strip().upper() + 'b'.replace('b', 'c') }}", "Ac"),
}


@pytest.mark.parametrize(("text", "rendered"), DIALECT.values(), ids=DIALECT)
def test_the_dialect(text: str, rendered: str, template: Write) -> None:
    assert render(template(text), HELLO, bos_token="<s>", eos_token="</s>") == rendered


@pytest.mark.parametrize("text", [text for text, _ in DIALECT.values()], ids=DIALECT)
def test_the_dialect_is_that_of_transformers(text: str, template: Write) -> None:
    chat = pytest.importorskip("transformers.utils.chat_template_utils")
    (theirs,), _ = chat.render_jinja_template(
        [HELLO], chat_template=text, add_generation_prompt=True, bos_token="<s>", eos_token="</s>"
    )
    assert render(template(text), HELLO, bos_token="<s>", eos_token="</s>") == theirs


# One model type for each template of the plugins in this environment.
TEMPLATES = {Registry.load(name).spec.chat_template: name for name in Registry.model_types()}
TOOL = {"type": "function", "function": {"name": "zoom", "description": "closer <&> 'Bär'"}}


@pytest.mark.parametrize("model_type", TEMPLATES.values())
def test_transformers_renders_the_plugins_templates_alike(model_type: str) -> None:
    chat = pytest.importorskip("transformers.utils.chat_template_utils")
    adapter = Registry.load(model_type)
    for conversation in CONVERSATIONS.values():
        for tools in ((), (TOOL,)):
            asked = replace(conversation, tools=tools)
            try:
                (theirs,), _ = chat.render_jinja_template(
                    [asked.template_messages()],
                    chat_template=Path(adapter.spec.chat_template).read_text(encoding="utf-8"),
                    tools=list(tools) or None,
                    add_generation_prompt=True,
                    bos_token=adapter.spec.bos_token,
                    eos_token=adapter.spec.eos_token,
                )
            except jinja2.TemplateError as refusal:  # some templates take no history, or no tools
                with pytest.raises(TemplateError, match=re.escape(str(refusal))):
                    adapter.render(asked)
            else:
                assert adapter.render(asked).text == theirs


def test_the_date(template: Write) -> None:
    assert render(template("{{ strftime_now('%Y') }}"), HELLO) == str(datetime.now().year)


# --- Errors


def test_a_template_may_refuse_the_conversation(template: Write) -> None:
    with pytest.raises(TemplateError) as caught:
        render(template("{{ raise_exception('roles must alternate') }}"), HELLO)
    assert str(caught.value) == "the chat template refuses the conversation: roles must alternate"


@pytest.mark.parametrize(
    "text",
    [
        "{% for message in messages %}",
        "{{ messages",
        "{% unknown %}",
        "{{ 'a' | no_such_filter }}",
        "{% include 'other.jinja' %}",
    ],
)
def test_a_syntax_error_names_the_file(text: str, template: Write) -> None:
    with pytest.raises(PluginError, match=r"the chat template acme\.jinja failed: "):
        render(template(text), HELLO)


@pytest.mark.parametrize(
    "text",
    [
        "{{ 'a' + 1 }}",
        "{{ 1 // 0 }}",
        "{{ missing.deeper }}",
    ],
)
def test_an_error_while_rendering_names_the_file(text: str, template: Write) -> None:
    with pytest.raises(PluginError, match=r"the chat template acme\.jinja failed: "):
        render(template(text), HELLO)


def test_a_missing_template_is_named(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"the chat template gone\.jinja failed: .*No such file"):
        render(tmp_path / "gone.jinja", HELLO)


def test_a_template_that_is_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "acme.jinja").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(PluginError, match=r"the chat template acme\.jinja failed: "):
        render(tmp_path / "acme.jinja", HELLO)


# --- The sandbox


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ ''['__class__']['__base__'] }}",
        "{{ strftime_now.__globals__['json'] }}",
        "{{ self.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ '{0.__class__.__mro__}'.format(messages) }}",
        "{{ 'a'.__class__.mro()[1].__subclasses__() }}",
        "{{ range(10000000) | list }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='system') }}",
        "{{ messages.clear() }}",
    ],
)
def test_no_template_leaves_the_sandbox(text: str, template: Write) -> None:
    messages = deepcopy(HELLO)
    with pytest.raises(PluginError, match=r"the chat template acme\.jinja failed: "):
        render(template(text), messages)
    assert messages == HELLO


@pytest.mark.parametrize(
    "text",
    ["{{ messages.__class__ }}", "{{ messages | attr('__class__') }}", "{{ raise_exception.__globals__ }}"],
)
def test_what_a_template_must_not_see_is_empty(text: str, template: Write) -> None:
    assert render(template(text), HELLO) == ""
