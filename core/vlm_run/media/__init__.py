"""From an image's source to a checked picture, under one policy for all front ends."""

from __future__ import annotations

from vlm_run.media.encode import convert_to_base64
from vlm_run.media.load import load_image, load_image_async
from vlm_run.media.policy import MediaPolicy

__all__ = ["MediaPolicy", "convert_to_base64", "load_image", "load_image_async"]
