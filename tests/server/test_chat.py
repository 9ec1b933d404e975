"""Chat completions in every form: OpenAI's and ms-swift's, streamed and whole, answered and refused."""

from __future__ import annotations

import pytest

from .conftest import MODEL, QUESTION, Server, base64_of, picture

TWO = base64_of(picture(2))
THREE = base64_of(picture(3))


def data_uri(encoded: str) -> str:
    return f"data:image/png;base64,{encoded}"


def part(encoded: str) -> dict[str, object]:
    return {"type": "image_url", "image_url": {"url": data_uri(encoded)}}


FORMS = {
    "images": {"content": QUESTION, "images": [TWO]},
    "one image, no list": {"content": QUESTION, "images": TWO},
    "a data URI": {"content": QUESTION, "images": [data_uri(TWO)]},
    "an image tag": {"content": f"<image>{QUESTION}", "images": [TWO]},
    "an img tag": {"content": f"<img>{data_uri(TWO)}</img>{QUESTION}"},
    "a part": {"content": [part(TWO), {"type": "text", "text": QUESTION}]},
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_gives_the_same_answer(server: Server, form: dict[str, object]) -> None:
    assert server.ask(**form) == "2"


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_streams(server: Server, form: dict[str, object]) -> None:
    form = dict(form)
    stream = server.openai.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": form.pop("content")}],  # type: ignore[list-item,misc]
        temperature=0,
        stream=True,
        extra_body=form,
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream).strip() == "2"
