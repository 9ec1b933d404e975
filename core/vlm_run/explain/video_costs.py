"""The videos of a conversation: the frames that the model sees, when they are shown, and their tokens."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from vlm_run.explain.explanation import VideoCost
from vlm_run.prompts.conversation import Conversation, Video

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
    from vlm_run.media.load import encoded_video, fetch_source, for_videos
    from vlm_run.media.video import sample_video

    facts = adapter.video_facts(video.selection)
    source = asyncio.run(fetch_source(video.source, for_videos(policy)))
    clip = sample_video(
        encoded_video(source, policy),  # type: ignore[arg-type]  # a video has no pages
        policy,
        lambda available, fps: facts.choose_frames(available, fps, video.selection),
        lambda width, height, frames: (1, 1),  # only sizes and times are wanted
    )
    width, height = clip.size
    return VideoCost(
        width,
        height,
        times=clip.times,
        fps=clip.fps,
        resized=facts.resized(width, height, len(clip.times)),
        tokens=facts.count(width, height, len(clip.times), clip.fps, clip.times),
    )
