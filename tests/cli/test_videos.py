"""`--video` of `explain` and `infer`: what is printed about a clip, and what is refused without an engine."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from vlm_run.cli import app

MODEL = "qwen2_5-vl-3b-instruct"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Ten seconds of 640 × 360 pixels, 10 frames per second."""
    path = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (640, 360))
    for number in range(100):
        writer.write(np.full((360, 640, 3), number, np.uint8))
    writer.release()
    return path


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.output or str(result.exception)


def test_explain_prints_the_frames_with_their_times(clip: Path) -> None:
    code, output = run("explain", MODEL, "What happens?", "--video", clip, "--end", 4, "--fps", 1)
    assert code == 0, output
    assert "1: 640 x 360 -> 4 frames of 644 x 364, 0.98 per second -> 598 tokens" in output
    assert "at 0.00 1.30 2.70 4.00 s" in output
    assert "+ videos 598 =" in output


def test_explain_as_json(clip: Path) -> None:
    code, output = run("explain", MODEL, "What happens?", "--video", clip, "--num-frames", 2, "--json")
    assert code == 0, output
    (video,) = json.loads(output[output.index("{") :])["videos"]
    assert video == {
        "width": 640,
        "height": 360,
        "times": [0.0, 9.9],
        "fps": 0.2,
        "resized": [644, 364],
        "tokens": 299,
    }


def test_a_video_raises_the_engines_limit_by_itself(clip: Path) -> None:
    _, output = run("explain", MODEL, "What happens?", "--video", clip)
    assert "limit_mm_per_prompt.video = 1" in output


def test_a_limit_that_is_given_stays(clip: Path) -> None:
    _, output = run("explain", MODEL, "What happens?", "--video", clip, "--max-videos", 0)
    assert "1 video is given, but the engine would accept at most 0 (--max-videos)" in output


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (("--fps", 1), "--fps is given without --video"),
        (("--video", "missing.mp4"), "message 1, video 1: 'missing.mp4' is not a file, a URL or base64"),
        (("--video", "CLIP", "--fps", 1, "--num-frames", 2), "the request has both 'fps' and 'num_frames'"),
        (
            ("--video", "CLIP", "--start", 20),
            "message 1, video 1: there is no frame between 20 s and the end",
        ),
    ],
)
def test_what_is_wrong(arguments: tuple[object, ...], cause: str, clip: Path) -> None:
    given = [clip if argument == "CLIP" else argument for argument in arguments]
    code, output = run("explain", MODEL, "What happens?", *given)
    assert code != 0
    assert cause in output


def test_infer_refuses_a_video_without_a_question(clip: Path) -> None:
    code, output = run("infer", MODEL, "--video", clip)
    assert code != 0
    assert "--video needs a question or a task" in output


def test_a_model_that_takes_no_videos_says_so_before_it_is_loaded(clip: Path) -> None:
    code, output = run("infer", "demo-llava", "What?", "--video", clip)
    assert code != 0
    assert output == "'demo-llava' takes no videos. Give frames as images, or use another model."
