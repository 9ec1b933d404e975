"""The videos of a conversation: the frames that the model sees, when they are shown, and their tokens."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from vlm_run.explain.explanation import VideoCost
from vlm_run.prompts.conversation import Conversation, Video
from vlm_run.video import FrameSelection, load_clip

if TYPE_CHECKING:
    from vlm_run.adapter import Adapter
    from vlm_run.media import MediaPolicy
    from vlm_run.media.video import Clip


def video_costs(
    adapter: Adapter, conversation: Conversation, policy: MediaPolicy | None
) -> tuple[VideoCost, ...]:
    """The cost of each video, which is fetched and decoded as it is for an answer.

    Raises:
        MediaError: A video is refused, damaged or too large; names the message and the video.
    """
    from vlm_run.media import MediaPolicy  # imports Pillow
    from vlm_run.media.load import locating_errors

    costs = []
    for index, (message, video) in enumerate(conversation.video_places()):
        with locating_errors(message, video_index=index):
            costs.append(_cost(adapter, video, policy or MediaPolicy()))
    return tuple(costs)


def video_cost(adapter: Adapter, clip: Clip, selection: FrameSelection, policy: MediaPolicy) -> VideoCost:
    """The cost of a decoded video.

    Args:
        adapter: The model.
        clip: The frames that it sees, in any size.
        selection: What the request wants.
        policy: The limit on the pixels of all frames.

    Raises:
        MediaError: The frames would have too many pixels, or the model does not accept them.
    """
    from vlm_run.media.video import check_frame_pixels

    width, height = clip.size
    resized = adapter.video_facts(selection).resized(width, height, len(clip.times))
    check_frame_pixels(len(clip.times), resized, policy)
    return VideoCost(
        width,
        height,
        times=clip.times,
        fps=clip.fps,
        resized=resized,
        tokens=adapter.count_video_tokens(
            *(width, height, len(clip.times), clip.fps, clip.times), max_pixels=selection.max_pixels
        ),
    )


def one_pixel(width: int, height: int, frames: int) -> tuple[int, int]:
    """The size to which frames are scaled where only their original size and their times are wanted."""
    return 1, 1


def _cost(adapter: Adapter, video: Video, policy: MediaPolicy) -> VideoCost:
    from vlm_run.media.load import encoded_video, fetch_video

    content = encoded_video(asyncio.run(fetch_video(video.source, policy)), policy)
    clip = load_clip(adapter.video_facts(video.selection), content, video.selection, policy, one_pixel)
    return video_cost(adapter, clip, video.selection, policy)
