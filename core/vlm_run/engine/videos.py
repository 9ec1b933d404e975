"""The videos of a request, as vLLM's processor gets them: frames that vlm-run chose, and their times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image as PILImage

from vlm_run.engine.cache_key import cache_key
from vlm_run.media import MediaPolicy
from vlm_run.media.load import encoded_video, locating_errors
from vlm_run.media.source import Frames
from vlm_run.media.video import Clip
from vlm_run.video import load_clip

if TYPE_CHECKING:
    from vlm_run.adapter import Adapter
    from vlm_run.prompts.conversation import Video

# Times of frames are given to vLLM as numbers of frames of a video with this many a second: milliseconds.
_CLOCK = 1000.0


@dataclass(frozen=True, slots=True)
class LoadedVideo:
    """A video to process.

    Attributes:
        cache_key: Its key in vLLM's caches.
        clip: Its frames; None if vLLM has their processed form in the cache.
    """

    cache_key: str
    clip: Clip | None

    @property
    def item(self) -> tuple[Any, dict[str, Any]] | None:
        """The frames and their metadata in vLLM's form; vLLM samples nothing."""
        if self.clip is None:
            return None
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
    adapter: Adapter,
    video: Video,
    policy: MediaPolicy,
    salt: bytes,
    is_processed: Callable[[str], bool],
    message_index: int,
    video_index: int,
) -> LoadedVideo:
    """Decode the frames of a video that the model sees, at the size at which it sees them.

    A video whose processed form vLLM has in its cache is not decoded.

    Args:
        adapter: The model.
        video: The video's part of the conversation, whose source is not remote.
        policy: Which videos may be loaded, and how large they may be.
        salt: What else the cache key depends on.
        is_processed: Whether vLLM's cache has the processed form of the video with this key.
        message_index: Index of its message, for errors.
        video_index: Index of the video in the conversation, for errors.

    Raises:
        MediaError: The video is refused, damaged or too large; names the message and the video.
    """
    with locating_errors(message_index, video_index=video_index):
        facts, selection = adapter.video_facts(video.selection), video.selection
        content = encoded_video(video.source, policy)
        key = cache_key(salt, f"video {astuple(selection)} ".encode(), *_parts(content))
        if is_processed(key):
            return LoadedVideo(key, None)
        return LoadedVideo(key, load_clip(facts, content, selection, policy).padded(facts.frame_multiple))


def _parts(content: bytes | Frames) -> Iterator[bytes]:
    """The bytes that identify a video in its cache key."""
    if isinstance(content, bytes):
        yield content
        return
    yield f"frames {content.times} ".encode()
    for image in content.images:
        if isinstance(image, bytes):
            yield f"{len(image)} ".encode()
            yield image
        elif isinstance(image, PILImage.Image):
            yield f"picture {image.mode} {image.width} {image.height} ".encode()
            yield image.tobytes()
