"""GLM-V's image sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from vlm_run import DynamicResolution


class TwoFrames(DynamicResolution):
    """As Qwen2-VL, but an image counts as a video of two equal frames, and a small one is enlarged first.

    The bounds here are those of one image. `size` in preprocessor_config.json, and in
    `mm_processor_kwargs`, has those of both frames.

    Source: `smart_resize` in transformers' `image_processing_glm4v.py`, which `Glm4vImageProcessor` and
    `Glm46VImageProcessor` call with two frames.
    """

    def with_processor_kwargs(self, kwargs: Mapping[str, Any]) -> Self:
        # The image processor knows no `min_pixels` and `max_pixels`.
        edges = {"min_pixels": "shortest_edge", "max_pixels": "longest_edge"}
        others = {name: value for name, value in kwargs.items() if name not in (*edges, "size")}
        size = kwargs.get("size") or {}
        bounds = {name: size[edge] // 2 for name, edge in edges.items() if size.get(edge)}
        return super().with_processor_kwargs({**others, **bounds})

    def resized(self, width: int, height: int) -> tuple[int, int]:
        unit = self.patch_size * self.merge_size
        if min(width, height) < unit:
            scale = unit / min(width, height)
            width, height = int(width * scale), int(height * scale)
        return super().resized(width, height)

    def processor_kwargs(self) -> dict[str, Any]:
        """The bounds as `mm_processor_kwargs`."""
        return {"size": {"shortest_edge": 2 * self.min_pixels, "longest_edge": 2 * self.max_pixels}}
