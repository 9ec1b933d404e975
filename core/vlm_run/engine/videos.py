"""The videos of a request, as vLLM's processor gets them: frames that vlm-run chose, and their times."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

from vlm_run.engine.cache_key import cache_key
from vlm_run.media import MediaPolicy
from vlm_run.media.load import encoded_video, locating_errors
from vlm_run.media.video import Clip, sample_video

if TYPE_CHECKING:
    from vlm_run.adapter import Adapter
    from vlm_run.prompts.conversation import Video

# Times of frames are given to vLLM as numbers of frames of a video with this many a second: milliseconds.
_CLOCK = 1000.0


@dataclass(frozen=True, slots=True)
class LoadedVideo:
    """A video whose frames are decoded.

    Attributes:
        cache_key: Its key in vLLM's caches.
        clip: Its frames.
    """

    cache_key: str
    clip: Clip

    @property
    def item(self) -> tuple[Any, dict[str, Any]]:
        """The frames and their metadata in vLLM's form; vLLM samples nothing."""
        height, width = self.clip.frames.shape[1:3]
        return self.clip.frames, {
            "fps": _CLOCK,
            "frames_indices": [round(time * _CLOCK) for time in self.clip.times],
            "total_num_frames": max(1, round(self.clip.seconds * _CLOCK)),
            "duration": self.clip.seconds,
            "width": width,
            "height": height,
            "video_backend": "opencv",
            "do_sample_frames": False,
        }


def load_video(
    adapter: Adapter, video: Video, policy: MediaPolicy, salt: bytes, message_index: int, video_index: int
) -> LoadedVideo:
    """Decode the frames of a video that the model sees, at the size at which it sees them.

    Args:
        adapter: The model.
        video: The video's part of the conversation, whose source is not remote.
        policy: Which videos may be loaded, and how large they may be.
        salt: What else the cache key depends on.
        message_index: Index of its message, for errors.
        video_index: Index of the video in the conversation, for errors.

    Raises:
        MediaError: The video is refused, damaged or too large; names the message and the video.
    """
    with locating_errors(message_index, video_index=video_index):
        facts, selection = adapter.video_facts(video.selection), video.selection
        content = encoded_video(video.source, policy)
        clip = sample_video(
            content,
            policy,
            lambda available, fps: facts.choose_frames(available, fps, selection),
            facts.resized,
        ).padded(facts.frame_multiple)
        return LoadedVideo(cache_key(salt, f"video {astuple(selection)} ".encode(), content), clip)
