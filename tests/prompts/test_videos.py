"""Videos in conversations and requests: the ways to give them, and which frames a request chooses."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from vlm_run import Adapter, Conversation, Frames, FrameSelection, Image, Registry, Request, Text, Video
from vlm_run.errors import ConversationError, MediaError, RequestError
from vlm_run.prompts.conversation import with_media_parts


def parts(conversation: Conversation) -> list[tuple[Any, ...]]:
    return [message.parts for message in conversation.messages]


def test_videos_beside_a_question_come_before_its_images_and_text() -> None:
    conversation = Conversation.from_query("Is it there?", images=["cat.png"], videos=["a.mp4"])
    assert parts(conversation) == [(Video("a.mp4"), Image("cat.png"), Text("Is it there?"))]


def test_a_tag_is_the_place_of_a_video() -> None:
    conversation = Conversation.from_query("First <video>\nthen <video>", videos=["a.mp4", "b.mp4"])
    assert parts(conversation) == [(Text("First "), Video("a.mp4"), Text("then "), Video("b.mp4"))]


def test_a_tag_may_contain_its_source() -> None:
    conversation = Conversation.from_query("<video> clips/a b.mp4 </video>What happens?")
    assert parts(conversation) == [(Video("clips/a b.mp4"), Text("What happens?"))]


def test_a_tag_is_text_where_no_videos_are_given() -> None:
    conversation = Conversation.from_query("What is the <video> element of HTML?")
    assert parts(conversation) == [(Text("What is the <video> element of HTML?"),)]


def test_videos_are_assigned_to_turns() -> None:
    history = [["What is this?", "A cat."]]
    conversation = Conversation.from_query("And now?", history, videos=["a.mp4", None])
    assert [video.source for _, video in conversation.video_places()] == ["a.mp4"]
    assert conversation.video_places()[0][0] == 0


@pytest.mark.parametrize(
    "part",
    [
        {"type": "video_url", "video_url": {"url": "a.mp4"}, "fps": 1},
        {"type": "video", "video": "a.mp4", "fps": 1.0},
    ],
)
def test_parts_of_vllm_and_of_qwen(part: dict[str, Any]) -> None:
    conversation = Conversation.from_messages([{"role": "user", "content": [part, "What happens?"]}])
    assert parts(conversation) == [(Video("a.mp4", FrameSelection(fps=1.0)), Text("What happens?"))]


FRAMES = ("1.png", "2.png", "3.png")


@pytest.mark.parametrize(
    ("video", "frames"),
    [
        (["1.png", "2.png", "3.png"], Frames(FRAMES)),
        ({"frames": ["1.png", "2.png", "3.png"], "times": [0, 1.5, 4]}, Frames(FRAMES, (0.0, 1.5, 4.0))),
        ({"frames": ["1.png", "2.png", "3.png"], "sample_fps": 4}, Frames(FRAMES, (0.0, 0.25, 0.5))),
        (
            {"frames": [{"bytes": b"1", "path": "1.png"}, {"path": "2.png", "url": "http://host/2.png"}]},
            Frames((b"1", "2.png")),
        ),
        (
            "data:video/jpeg;base64,AAAA,BBBB",
            Frames(("data:image/jpeg;base64,AAAA", "data:image/jpeg;base64,BBBB")),
        ),
    ],
)
def test_a_video_may_be_a_list_of_frames(video: Any, frames: Frames) -> None:
    conversation = Conversation.from_query("What happens?", videos=[video])
    assert parts(conversation) == [(Video(frames), Text("What happens?"))]


@pytest.mark.parametrize(
    "part", [{"type": "video", "video": list(FRAMES)}, {"type": "video", "frames": list(FRAMES)}]
)
def test_a_part_may_have_frames_with_their_times(part: dict[str, Any]) -> None:
    content = [{**part, "times": [0, 2, 3], "max_frames": 2}]
    (video,) = Conversation.from_messages([{"role": "user", "content": content}]).video_places()
    assert video[1] == Video(Frames(FRAMES, (0.0, 2.0, 3.0)), FrameSelection(max_frames=2))


@pytest.mark.parametrize(
    ("video", "cause"),
    [
        ([], "video 1 has a video without frames"),
        ({"frames": "1.png"}, "'frames' of video 1 must be a list"),
        (["1.png", {"bytes": None, "path": None}], "frame 2 of video 1 has no image"),
        ({"frames": ["1.png"], "times": [0, 1]}, "'times' of video 1 must be a list with a time for each of"),
        ({"frames": ["1.png", "2.png"], "times": [1, 1]}, "'times' of video 1 do not ascend"),
        ({"frames": ["1.png"], "times": ["0:01"]}, "'times' of video 1 is not a time in seconds: '0:01'"),
    ],
)
def test_frames_that_make_no_sense(video: Any, cause: str) -> None:
    with pytest.raises(ConversationError, match=re.escape(cause)):
        Conversation.from_query("What happens?", videos=[video])


def test_the_chat_template_gets_a_part_for_each_video() -> None:
    (message,) = Conversation.from_query("What happens?", videos=["a.mp4"]).template_messages()
    assert message["content"] == [{"type": "video"}, {"type": "text", "text": "What happens?"}]


def test_qwens_names_of_fields_are_understood() -> None:
    part = {"type": "video", "video": "a.mp4", "nframes": 8, "video_start": 1, "video_end": 2.5}
    (video,) = Conversation.from_messages([{"role": "user", "content": [part]}]).video_places()
    assert video[1].selection == FrameSelection(num_frames=8, start=1.0, end=2.5)


def test_a_requests_fields_are_for_videos_that_leave_them_open() -> None:
    own = {"type": "video", "video": "a.mp4", "num_frames": 4}
    other = {"type": "video", "video": "b.mp4"}
    request = Request.parse(
        {"messages": [{"role": "user", "content": [own, other]}], "fps": 1, "end": 10, "max_pixels": 50_000}
    )
    assert [video.selection for _, video in request.conversation.video_places()] == [
        FrameSelection(num_frames=4, end=10.0, max_pixels=50_000),
        FrameSelection(fps=1.0, end=10.0, max_pixels=50_000),
    ]


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"fps": 0}, "'fps' of the request is not a number of frames per second: 0"),
        ({"fps": float("nan")}, "'fps' of the request is not a number of frames per second: nan"),
        ({"num_frames": 2.5}, "'num_frames' of the request is not a number of frames: 2.5"),
        ({"max_frames": True}, "'max_frames' of the request is not a number of frames: True"),
        ({"start": -1}, "'start' of the request is not a time in seconds: -1"),
        ({"start": "0:10"}, "'start' of the request is not a time in seconds: '0:10'"),
        ({"start": 5, "end": 2}, "'start' of the request, 5 s, is after its 'end', 2 s"),
        ({"fps": 1, "num_frames": 8}, "the request has both 'fps' and 'num_frames'"),
    ],
)
def test_fields_that_make_no_sense(fields: dict[str, Any], cause: str) -> None:
    with pytest.raises(ConversationError) as raised:
        Request.parse({"query": "What happens?", "videos": ["a.mp4"], **fields})
    assert raised.value.cause == cause


def test_fields_for_videos_need_a_video() -> None:
    with pytest.raises(RequestError, match="'fps' is given, but the request has no video"):
        Request.parse({"query": "What is this?", "images": ["cat.png"], "fps": 1})


def test_tags_and_videos_must_match() -> None:
    with pytest.raises(ConversationError, match="<video> tag 2 of 2 has no video: 1 given"):
        Conversation.from_query("<video><video>", videos=["a.mp4"])
    with pytest.raises(
        ConversationError, match="video 2: 2 videos are given, but the text has 1 <video> tag"
    ):
        Conversation.from_query("<video>", videos=["a.mp4", "b.mp4"])


@pytest.mark.parametrize("role", ["system", "assistant", "tool"])
def test_only_users_show_videos(role: str) -> None:
    part = {"type": "video", "video": "a.mp4"}
    with pytest.raises(ConversationError, match=f"a message of role '{role}' cannot contain videos"):
        Conversation.from_messages([{"role": role, "content": [part]}, {"role": "user", "content": "Why?"}])


def test_messages_for_a_server_keep_videos_and_their_fields() -> None:
    part = {"type": "video", "video": "a.mp4", "fps": 1}
    (message,) = with_media_parts([{"role": "user", "content": [part, {"type": "image", "image": "b.png"}]}])
    assert message["content"][0] == {"type": "video_url", "video_url": {"url": "a.mp4"}, "fps": 1.0}
    (message,) = with_media_parts(
        [{"role": "user", "content": "Why?"}], videos=[{"frames": ["1.png", "2.png"], "times": [0, 4]}]
    )
    assert message["content"][0] == {"type": "video", "video": ["1.png", "2.png"], "times": [0.0, 4.0]}


def test_a_prompt_has_the_models_placeholder_where_the_video_stands() -> None:
    conversation = Conversation.from_query("What happens?", images=["a.png"], videos=["a.mp4"])
    prompt = Registry.load("qwen2-vl-2b-instruct").render_prompt(conversation).text
    video, image = (
        "<|vision_start|><|video_pad|><|vision_end|>",
        "<|vision_start|><|image_pad|><|vision_end|>",
    )
    assert f"user\n{video}{image}What happens?<|im_end|>" in prompt


REFUSAL = "'llava1_5-7b-instruct' takes no videos. Give frames as images, or use another model."


def test_a_model_without_videos_refuses_a_conversation_with_one() -> None:
    conversation = Conversation.from_query("What happens?", videos=["a.mp4"])
    with pytest.raises(MediaError, match=f"^message 1, video 1: {REFUSAL}$"):
        Registry.load("llava1_5-7b-instruct").render_prompt(conversation)


@pytest.mark.parametrize(
    "ask",
    [
        lambda adapter: adapter.video_facts(),
        lambda adapter: adapter.count_video_tokens(640, 480, 8, fps=2.0),
    ],
    ids=["video_facts", "count_video_tokens"],
)
def test_a_model_without_videos_has_no_facts_and_no_counts_of_them(ask: Callable[[Adapter], Any]) -> None:
    with pytest.raises(MediaError, match=f"^{REFUSAL}$"):
        ask(Registry.load("llava1_5-7b-instruct"))
