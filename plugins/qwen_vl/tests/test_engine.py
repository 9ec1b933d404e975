"""A real engine with random weights: what a prompt costs, that images and videos reach the model, bounds."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from vlm_run import Engine, Limits, Registry, Request, Sampling
from vlm_run.cli.answer_log import AnswerLog
from vlm_run.cli.interactive import Session
from vlm_run.engine.tracing import trace
from vlm_run.testing.conversations import user
from vlm_run_demo import IN_ONE_PROCESS

MODEL_TYPE = "qwen2-vl-2b-instruct"
WIDE = Image.linear_gradient("L").resize((400, 100)).convert("RGB")
TALL = Image.radial_gradient("L").resize((90, 300)).convert("RGB")


@pytest.fixture(scope="module")
def qwen(checkpoint: Callable[[str], Path]) -> Iterator[Engine]:
    pytest.importorskip("vllm")
    import torch
    from transformers import AutoConfig, Qwen2VLForConditionalGeneration

    directory = checkpoint(MODEL_TYPE)
    torch.manual_seed(0)
    model = Qwen2VLForConditionalGeneration(AutoConfig.from_pretrained(directory))
    with torch.no_grad():  # large enough for an image to move the answer's probabilities
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    model.save_pretrained(directory)

    limits = Limits(max_model_len=2048, max_pixels=256 * 28 * 28, max_videos=1)
    with Registry.load(MODEL_TYPE, checkpoint=directory, limits=limits).engine(
        max_num_seqs=2,
        dtype="float32",
        enforce_eager=True,
        kv_cache_memory_bytes=2**28,
        distributed_executor_backend=IN_ONE_PROCESS,
    ) as engine:
        yield engine


def _asked(first: Image.Image, second: Image.Image, **bounds: int) -> dict[str, Any]:
    parts = {"type": "image", "image": first}, "Before", {"type": "image", "image": second}, "and after?"
    return {"messages": [user(*parts)], **bounds}


def test_two_images_of_different_shapes_cost_what_was_counted_and_matter(qwen: Engine) -> None:
    counted = tuple(qwen.adapter.count_image_tokens(*image.size) for image in (WIDE, TALL))
    assert counted[0] != counted[1]
    (answer,) = qwen.infer([_asked(WIDE, TALL)], {"max_tokens": 1})
    assert answer.usage.image_tokens == counted
    prompt = qwen.adapter.render_prompt(Request.parse(_asked(WIDE, TALL)).conversation).text
    for token in qwen.adapter.spec.control_tokens:
        prompt = prompt.replace(token, "·")
    # A token for each byte and for each special token, two of which the images' own replace.
    assert answer.usage.prompt_tokens == sum(counted) + len(prompt) - 2

    pairs = [(WIDE, TALL), (WIDE, TALL), (WIDE.rotate(180), TALL), (WIDE, TALL.rotate(90))]
    first, same, *changed = trace(qwen, [_asked(*pair) for pair in pairs], max_tokens=4)
    assert same.token_ids == first.token_ids
    assert same.logprobs == pytest.approx(first.logprobs, abs=1e-4)
    assert all(trace.logprobs != pytest.approx(first.logprobs, abs=1e-4) for trace in changed)


def test_a_requests_bounds_hold_for_it_alone(qwen: Engine) -> None:
    area = 8 * 28 * 28
    bounded, free = qwen.infer([_asked(WIDE, TALL, max_pixels=area), _asked(WIDE, TALL)], {"max_tokens": 1})
    assert all(count <= 8 for count in bounded.usage.image_tokens)
    assert free.usage.image_tokens == tuple(
        qwen.adapter.count_image_tokens(*image.size) for image in (WIDE, TALL)
    )


def test_a_request_does_not_widen_the_engines_bounds(qwen: Engine) -> None:
    large = Image.new("RGB", (1400, 1400))
    (answer,) = qwen.infer([_asked(large, WIDE, max_pixels=10**9)], {"max_tokens": 1})
    assert answer.usage.image_tokens[0] == 256


def _clip(path: Path, greys: list[int]) -> Path:
    """Write a video of two frames per second, each in one grey."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 2, (64, 64))
    for grey in greys:
        writer.write(np.full((64, 64, 3), grey, np.uint8))
    writer.release()
    return path


def test_the_frames_of_a_video_reach_the_model_in_their_order(qwen: Engine, tmp_path: Path) -> None:
    dark_to_bright = _clip(tmp_path / "up.mp4", [0, 0, 80, 80, 160, 160, 240, 240])
    bright_to_dark = _clip(tmp_path / "down.mp4", [240, 240, 160, 160, 80, 80, 0, 0])
    asked = [{"query": "What happens?", "videos": [str(each)]} for each in (dark_to_bright, bright_to_dark)]
    (answer,) = qwen.infer(asked[:1], {"max_tokens": 1})
    assert answer.usage.video_tokens == (4 * 12 * 12,)  # 8 frames of 336 × 336 pixels
    assert answer.usage.image_tokens == ()

    up, again, down = trace(qwen, [asked[0], asked[0], asked[1]], max_tokens=4)
    assert again.logprobs == pytest.approx(up.logprobs, abs=1e-4)
    assert down.logprobs != pytest.approx(up.logprobs, abs=1e-4)


def test_an_image_and_a_video_in_one_request(qwen: Engine, tmp_path: Path) -> None:
    clip = _clip(tmp_path / "clip.mp4", [0, 80, 160, 240])
    request = {
        "query": "Is it in the video?",
        "images": [WIDE],
        "videos": [clip.read_bytes()],
        "num_frames": 2,
    }
    (answer,) = qwen.infer([request], {"max_tokens": 1})
    assert answer.usage.image_tokens == (qwen.adapter.count_image_tokens(*WIDE.size),)
    assert answer.usage.video_tokens == (12 * 12,)


def test_videos_in_an_interactive_session_stay_with_their_turn(
    qwen: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = _clip(tmp_path / "clip.mp4", [0, 80, 160, 240])
    lines = [f"/video {clip}", "What happens?", "And then?", "", f"/save {tmp_path}/talk.jsonl", "quit"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines) + "\n"))
    Session(qwen, Sampling(max_tokens=1), None, AnswerLog(None, "", Sampling()), stats=True).run()
    output = capsys.readouterr().out
    assert ": 64 × 64 pixels, 4 frames, 288 tokens" in output
    assert output.count("0 of them image, 288 video") == 2
    saved = json.loads((tmp_path / "talk.jsonl").read_text())
    assert saved["videos"] == [str(clip)]
    assert saved["history"][0][0] == "<video>What happens?"


def test_a_broken_video_fails_alone(qwen: Engine, tmp_path: Path) -> None:
    clip = _clip(tmp_path / "clip.mp4", [0, 80, 160, 240]).read_bytes()
    broken = clip[: clip.index(b"moov")]
    bad, good = qwen.infer(
        [{"query": "Why?", "videos": [each]} for each in (broken, clip)], {"max_tokens": 1}
    )
    assert str(bad.error).startswith("message 1, video 1: the video (MP4) is damaged")
    assert good.error is None
