"""Chat completions with videos: what reaches the renderer, and what a model without videos answers."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Server

pytest.importorskip("vllm")
CLIP, OTHER = "https://example.com/a.mp4", "https://example.com/b.mp4"


def part(url: str, **fields: Any) -> dict[str, Any]:
    return {"type": "video_url", "video_url": {"url": url}, **fields}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


@pytest.mark.parametrize(
    ("content", "videos", "expected"),
    [
        ([part(CLIP, num_frames=8), text("What?")], None, [part(CLIP, num_frames=8), text("What?")]),
        ("What?", [CLIP], [part(CLIP), text("What?")]),
        ("<video>then <video>?", [CLIP, OTHER], [part(CLIP), text("then "), part(OTHER), text("?")]),
        (f"<video>{CLIP}</video>What?", None, [part(CLIP), text("What?")]),
        ("What does <video> mean in HTML?", None, "What does <video> mean in HTML?"),
    ],
)
def test_every_form_becomes_a_part(content: Any, videos: list[str] | None, expected: Any) -> None:
    from vlm_run.server.chat_endpoint import ChatRequest

    message = {"role": "user", "content": content}
    request = ChatRequest.model_validate({"model": "m", "messages": [message], "videos": videos})
    (read,) = request.model_dump()["messages"]
    assert read["content"] == expected
    assert request.videos is None


def test_a_model_that_takes_none_says_so(server: Server) -> None:
    assert "'demo-llava' takes no videos" in server.refusal([part(CLIP), text("What?")])
    assert "'demo-llava' takes no videos" in server.refusal("What?", videos=[CLIP])
    assert "an entry of 'videos' cannot be of type int" in server.refusal("What?", videos=[1])
