"""The videos of a conversation: the frames that the model sees, when they are shown, and their tokens."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from vlm_run.explain.explanation import VideoCost
from vlm_run.prompts.conversation import Conversation, Video
from vlm_run.video import load_clip

if TYPE_CHECKING:
    from vlm_run.adapter import Adapter
    from vlm_run.media import MediaPolicy


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


def _cost(adapter: Adapter, video: Video, policy: MediaPolicy) -> VideoCost:
    from vlm_run.media.load import encoded_video, fetch_video
    from vlm_run.media.video import check_frame_pixels

    facts = adapter.video_facts(video.selection)
    content = encoded_video(asyncio.run(fetch_video(video.source, policy)), policy)
    # Only sizes and times are wanted.
    clip = load_clip(facts, content, video.selection, policy, lambda width, height, frames: (1, 1))
    width, height = clip.size
    resized = facts.resized(width, height, len(clip.times))
    check_frame_pixels(len(clip.times), resized, policy)
    return VideoCost(
        width,
        height,
        times=clip.times,
        fps=clip.fps,
        resized=resized,
        tokens=adapter.count_video_tokens(
            *(width, height, len(clip.times), clip.fps, clip.times), max_pixels=video.selection.max_pixels
        ),
    )
