"""Which frame is the preview of a video."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vlm_run import MediaPolicy
from vlm_run.media.poster import Poster
from vlm_run.media.video import sample_video

from .videos import numbers, write_video


@pytest.mark.parametrize(("chosen", "shown"), [([0, 7, 14, 21], 14), ([0, 5], 5), ([3], 3)])
def test_it_is_the_first_chosen_frame_after_a_second_or_the_last_of_fewer(
    tmp_path: Path, chosen: list[int], shown: int
) -> None:
    video = write_video(tmp_path / "clip.mp4", frames=30, fps=10).read_bytes()
    poster = Poster()
    clip = sample_video(video, MediaPolicy(), lambda *_: chosen, lambda *_: (1, 1), poster.see)
    assert poster.image is not None
    assert numbers(np.asarray(poster.image)[None]) == [shown]
    assert clip.duration == 3.0
