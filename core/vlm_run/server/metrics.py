"""vlm-run's Prometheus metrics, exposed beside vLLM's own at `/metrics`."""

from __future__ import annotations

import re

from prometheus_client import Counter, Histogram

from vlm_run.engine.renderer import Rendered
from vlm_run.errors import VlmRunError

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

FETCH_SECONDS = Histogram(
    "vlm_run:image_fetch_seconds", "Fetching all remote images and videos of a request.", buckets=_SECONDS
)
_RENDER_SECONDS = Histogram(
    "vlm_run:render_seconds",
    "Decoding and processing the images and videos of a request, and tokenizing its prompt.",
    buckets=_SECONDS,
)
_IMAGES = Counter("vlm_run:images", "Images passed to the engine.")
_IMAGE_TOKENS = Counter("vlm_run:image_tokens", "Prompt tokens that stand for images.")
_CACHE_QUERIES = Counter("vlm_run:image_cache_queries", "Images looked up in the cache of processed images.")
_CACHE_HITS = Counter("vlm_run:image_cache_hits", "Images found in the cache of processed images.")
_VIDEOS = Counter("vlm_run:videos", "Videos passed to the engine.")
_VIDEO_TOKENS = Counter("vlm_run:video_tokens", "Prompt tokens that stand for videos.")
_VIDEO_CACHE_HITS = Counter("vlm_run:video_cache_hits", "Videos found in the cache of processed videos.")
_REJECTIONS = Counter("vlm_run:rejected_requests", "Requests refused by vlm-run, by reason.", ["reason"])


def count_rendered(rendered: Rendered) -> None:
    """Record the images and videos of a request that is ready for the engine."""
    _RENDER_SECONDS.observe(rendered.stages.decode + rendered.stages.process)
    _IMAGES.inc(len(rendered.image_tokens))
    _CACHE_QUERIES.inc(len(rendered.image_tokens))
    _CACHE_HITS.inc(rendered.reused_images)
    _IMAGE_TOKENS.inc(sum(rendered.image_tokens))
    _VIDEOS.inc(len(rendered.video_tokens))
    _VIDEO_TOKENS.inc(sum(rendered.video_tokens))
    _VIDEO_CACHE_HITS.inc(rendered.reused_videos)


def count_rejection(error: VlmRunError | str) -> None:
    """Count a refused request.

    Args:
        error: The reason, or an error whose class gives it, as in `context_overflow`.
    """
    name = error if isinstance(error, str) else type(error).__name__.removesuffix("Error")
    words = re.findall("[A-Z]?[a-z]+", name)
    _REJECTIONS.labels("_".join(words).lower()).inc()
