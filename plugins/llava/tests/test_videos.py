"""Videos of LLaVA-OneVision and LLaVA-NeXT-Video: prompts, worked counts, and vLLM's own processor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vlm_run import Conversation, Limits, Registry
from vlm_run.errors import MediaError
from vlm_run.video import FrameSelection

ONEVISION, NEXT_VIDEO = "llava-onevision-qwen2-7b-ov", "llava-next-video-7b-instruct"
# Width and height in pixels and number of frames.
VIDEOS = [
    *((64, 64, 1), (64, 64, 2), (98, 64, 3), (320, 240, 4), (240, 320, 5), (640, 360, 8), (96, 62, 9)),
    *((128, 720, 4), (1280, 720, 3), (56, 28, 13), (400, 300, 5), (64, 48, 2), (200, 100, 17)),
    *((32, 32, 6), (160, 90, 5), (800, 20, 1), (40, 800, 2), (1000, 400, 3), (250, 500, 5), (322, 182, 7)),
    *((1920, 1080, 1), (336, 336, 3), (384, 384, 3), (337, 335, 2)),
]


@pytest.mark.parametrize("model_type", [ONEVISION, NEXT_VIDEO])
def test_count_is_that_of_vllms_processor(
    model_type: str, checkpoint: Callable[[str], Path], vllm_video_tokens: Callable[..., list[int]]
) -> None:
    adapter = Registry.load(model_type, checkpoint=checkpoint(model_type), limits=Limits(max_videos=1))
    counted = [adapter.count_video_tokens(*video, fps=2.0) for video in VIDEOS]
    assert vllm_video_tokens(adapter, VIDEOS) == counted


def test_worked_counts() -> None:
    assert Registry.load(ONEVISION).count_video_tokens(640, 480, 32, 2.0) == 32 * 14 * 14 + 1
    assert Registry.load(NEXT_VIDEO).count_video_tokens(640, 480, 32, 2.0) == 32 * 12 * 12


@pytest.mark.parametrize("model_type", [ONEVISION, NEXT_VIDEO])
def test_frames_are_32_of_a_video_of_any_length(model_type: str) -> None:
    choose = Registry.load(model_type).video_facts().choose_frames
    assert len(choose(250, 25, FrameSelection())) == len(choose(90_000, 25, FrameSelection())) == 32
    assert choose(20, 25, FrameSelection()) == list(range(20))
    assert len(choose(250, 25, FrameSelection(fps=1))) == 10
    assert len(choose(250, 25, FrameSelection(num_frames=7))) == 7


def test_a_frame_of_next_video_is_scaled_to_where_its_processor_only_cuts() -> None:
    facts = Registry.load(NEXT_VIDEO).video_facts()
    assert facts.resized(1280, 720, 32) == (597, 336)
    assert facts.resized(200, 300, 32) == (336, 504)


def test_a_bound_on_the_area_of_frames_is_refused() -> None:
    with pytest.raises(MediaError, match="does not support max_pixels of a video"):
        Registry.load(ONEVISION).video_facts(FrameSelection(max_pixels=100_000))


@pytest.mark.parametrize(
    ("model_type", "prompt"),
    [
        # The hub's template of OneVision, as in test_onevision.py: images, then videos, then texts.
        (ONEVISION, "<|im_start|>user <image><video>\nWhy?<|im_end|><|im_start|>assistant\n"),
        # "USER: <video>\n<prompt> ASSISTANT:": transformers' documentation of LLaVA-NeXT-Video.
        (NEXT_VIDEO, "USER: <video>\nWhy? ASSISTANT:"),
    ],
)
def test_prompt(model_type: str, prompt: str) -> None:
    images = ["cat.png"] if "<image>" in prompt else []
    conversation = Conversation.from_query("Why?", images=images, videos=["clip.mp4"])
    assert Registry.load(model_type).render_prompt(conversation).text == prompt


def test_next_video_takes_a_video_by_default_and_no_images() -> None:
    kwargs = Registry.load(NEXT_VIDEO).engine_kwargs()
    assert kwargs["limit_mm_per_prompt"] == {"video": 1, "image": 0}
    assert kwargs["max_model_len"] > Registry.load(NEXT_VIDEO).count_video_tokens(640, 480, 32, 2.0)
