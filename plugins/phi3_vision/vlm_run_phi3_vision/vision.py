"""Phi-3-vision's HD transform as arithmetic: sizes, crops and token counts.

Source: `HD_transform` and `calc_num_image_tokens_from_image_size` as published with
microsoft/Phi-3-vision-128k-instruct (image_processing_phi3_v.py).
"""

from __future__ import annotations

import math

from vlm_run import VisionFacts

CROP = 336
"""Side of one crop in pixels."""
_SIDE = 12
"""Image tokens along one side of a crop: 24 patches, merged two by two."""


class HDTransform(VisionFacts):
    """The image at a large scale, padded to whole crops, and one small view of the entire image."""

    max_aspect_ratio: float | None = 200.0
    num_crops: int
    """Maximum number of crops of the large view."""

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height in pixels of the resized image, before it is padded to whole crops."""
        if width < height:
            return self.resized(height, width)[::-1]
        ratio = width / height
        scale = 1
        while (scale + 1) * math.ceil((scale + 1) / ratio) <= self.num_crops:
            scale += 1
        return scale * CROP, int(scale * CROP / ratio)

    def size_with_most_tokens(self) -> tuple[int, int]:
        most = range(1, self.num_crops + 1)
        sizes = ((CROP * columns, CROP * rows) for columns in most for rows in most)
        return max(sizes, key=lambda size: self.count_image_tokens(*size))

    def grid(self, width: int, height: int) -> tuple[int, int]:
        """Number of columns and rows of crops."""
        columns, rows = (math.ceil(side / CROP) for side in self.resized(width, height))
        return columns, rows

    def count_image_tokens(self, width: int, height: int) -> int:
        columns, rows = self.grid(width, height)
        # Each row of tokens ends in a newline token; one token separates the two views.
        large = _SIDE * rows * (_SIDE * columns + 1)
        small = _SIDE * (_SIDE + 1)
        return large + 1 + small
