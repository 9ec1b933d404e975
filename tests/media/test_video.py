"""Decoding of videos: which frames, when they are shown, and what is refused before or while decoding."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from vlm_run import MediaPolicy
from vlm_run.errors import MediaError
from vlm_run.media.video import Clip, sample_video, video_container

from .videos import CODECS, cut_by_edit_list, index_first, numbers, rotated, with_frame_times, write_video

POLICY = MediaPolicy()


def sample(content: bytes, *chosen: int, policy: MediaPolicy = POLICY) -> Clip:
    """The chosen frames, all by default, at their own size."""
    return sample_video(
        content,
        policy,
        lambda count, fps: chosen or range(count),
        lambda width, height, frames: (width, height),
    )


@pytest.mark.parametrize("suffix", CODECS)
def test_every_container_gives_the_chosen_frames_and_their_times(tmp_path: Path, suffix: str) -> None:
    content = write_video(tmp_path / f"clip.{suffix}", frames=30, fps=25).read_bytes()
    clip = sample(content, 0, 7, 29)
    assert numbers(clip.frames) == [0, 7, 29]
    assert [time - clip.times[0] for time in clip.times] == pytest.approx([0, 7 / 25, 29 / 25], abs=2e-3)
    assert clip.frames.shape == (3, 64, 96, 3)


@pytest.mark.parametrize("fps", [1, 12.5, 24, 29.97, 60])
@pytest.mark.parametrize("frames", [1, 2, 31, 500])
def test_frame_counts_and_rates(tmp_path: Path, frames: int, fps: float) -> None:
    content = write_video(tmp_path / "clip.mp4", frames, fps, (32, 32)).read_bytes()
    seen = []
    clip = sample_video(
        content,
        POLICY,
        lambda count, rate: seen.append((count, rate)) or [0, count - 1][:count],
        lambda *_: (32, 32),
    )
    assert seen == [(frames, pytest.approx(fps, rel=1e-3))]
    assert clip.times[-1] == pytest.approx((frames - 1) / fps, rel=1e-3)
    assert clip.seconds == pytest.approx(frames / fps, rel=1e-3)


def test_frames_are_scaled_before_they_are_kept(tmp_path: Path) -> None:
    content = write_video(tmp_path / "clip.mp4", frames=4).read_bytes()
    asked = []
    clip = sample_video(
        content, POLICY, lambda count, fps: [1, 3], lambda *size: asked.append(size) or (56, 28)
    )
    assert asked == [(96, 64, 2)]
    assert clip.frames.shape == (2, 28, 56, 3)
    assert clip.size == (96, 64)


def test_times_are_those_of_the_frames_where_the_frame_rate_varies(tmp_path: Path) -> None:
    steady = write_video(tmp_path / "clip.mp4", frames=20, fps=10).read_bytes()
    clip = sample(with_frame_times(steady, [10, 1, 10, 5]))  # the second half is five times as slow
    assert numbers(clip.frames) == list(range(20))
    assert clip.times[:10] == pytest.approx([number / 10 for number in range(10)])
    assert clip.times[10:] == pytest.approx([1 + number / 2 for number in range(10)])


def test_a_video_of_a_phone_is_upright(tmp_path: Path) -> None:
    content = write_video(tmp_path / "clip.mp4", frames=2, size=(96, 64)).read_bytes()
    assert sample(rotated(content)).size == (64, 96)


def test_a_number_of_frames_that_the_header_overstates_a_little_is_counted(tmp_path: Path) -> None:
    content = write_video(tmp_path / "clip.avi", frames=30).read_bytes()
    at = content.index(b"strh") + 8 + 32
    assert struct.unpack("<I", content[at : at + 4]) == (30,)
    overstated = content[:at] + struct.pack("<I", 32) + content[at + 4 :]
    assert numbers(sample(overstated).frames) == [number % 32 for number in range(30)]


def test_frames_that_an_edit_list_hides_are_not_missed(tmp_path: Path) -> None:
    content = write_video(tmp_path / "clip.mp4", frames=30, fps=10).read_bytes()
    clip = sample(cut_by_edit_list(content, 0.5))
    assert numbers(clip.frames) == list(range(15))


def test_a_truncated_video_is_damaged_rather_than_short(tmp_path: Path) -> None:
    content = write_video(tmp_path / "clip.avi", frames=100).read_bytes()
    with pytest.raises(MediaError, match=r"the video \(AVI\) is damaged: it ends after \d+ of 100 frames"):
        sample(content[: len(content) // 2])


def test_a_truncated_mp4_is_damaged_even_if_it_has_an_edit_list(tmp_path: Path) -> None:
    content = write_video(tmp_path / "clip.mp4", frames=100).read_bytes()
    streamed = index_first(content)
    assert len(sample(streamed).times) == 100
    with pytest.raises(MediaError, match=r"the video \(MP4\) is damaged: it ends after \d+ of 100 frames"):
        sample(streamed[: len(streamed) // 2])


def test_an_mp4_without_its_index_is_damaged(tmp_path: Path) -> None:
    content = write_video(tmp_path / "clip.mp4").read_bytes()
    with pytest.raises(MediaError, match=r"the video \(MP4\) is damaged: OpenCV finds no video stream"):
        sample(content[: content.index(b"moov")])


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "the video is empty: it has 0 bytes"),
        (b"not a video" * 100, "not a video in a known container"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "not a video in a known container"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "not a video in a known container"),
    ],
)
def test_what_is_no_video_is_not_given_to_a_decoder(content: bytes, cause: str) -> None:
    with pytest.raises(MediaError, match=cause):
        sample(content)


def test_an_image_is_no_video() -> None:
    assert video_container(b"\x00\x00\x00\x1cftypavif") is None
    assert video_container(b"\x00\x00\x00\x1cftypisom") == "MP4"


@pytest.mark.parametrize(
    ("limit", "cause"),
    [
        ({"max_video_bytes": 100}, "larger than"),
        ({"max_video_seconds": 2.0}, "lasts 2 s, more than the 2 allowed"),
        ({"max_video_frames": 24}, "has 25 frames, more than the 24 allowed"),
        ({"max_pixels": 6143}, "has 96 × 64 pixels, more than the 6,143 allowed"),
        ({"max_video_pixels": 25 * 6143}, "25 frames of 96 × 64 pixels have more than"),
        ({"video_timeout_s": 1e-9}, "takes longer than 1e-09 s"),
    ],
)
def test_limits(tmp_path: Path, limit: dict[str, float], cause: str) -> None:
    content = write_video(tmp_path / "clip.mp4", frames=25, fps=10).read_bytes()
    with pytest.raises(MediaError, match=cause):
        sample(content, policy=MediaPolicy(**limit))
