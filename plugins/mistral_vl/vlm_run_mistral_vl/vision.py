"""Rows of image tokens."""

from __future__ import annotations

from vlm_run import VisionFacts


class Rows(VisionFacts):
    """An image keeps its aspect ratio and is shrunk to a maximum side; each row of tokens ends with one more.

    The last row ends with `[IMG_END]`, the others with `[IMG_BREAK]`.

    Source: `ImageEncoder` in mistral-common's `tokens/tokenizers/image.py`. Its settings are those of `image`
    in tekken.json.
    """

    image_patch_size: int
    """Side of one patch, in pixels."""
    max_image_size: int
    """Maximum side of an image, in pixels."""
    spatial_merge_size: int = 1
    """Side, in patches, of the square that becomes one image token."""

    def with_processor_kwargs(self, kwargs: object) -> Rows:
        # mistral-common's encoder has the settings of tekken.json, whatever the engine's options.
        return self

    def resized(self, width: int, height: int) -> tuple[int, int]:
        unit = self.image_patch_size * self.spatial_merge_size
        ratio = max(height / self.max_image_size, width / self.max_image_size)
        if ratio > 1:
            width, height = (max(round(side / ratio), 1) for side in (width, height))
        return -(-width // unit) * unit, -(-height // unit) * unit

    def size_with_most_tokens(self) -> tuple[int, int]:
        return self.max_image_size, self.max_image_size

    def count_image_tokens(self, width: int, height: int) -> int:
        unit = self.image_patch_size * self.spatial_merge_size
        new_width, new_height = self.resized(width, height)
        columns, rows = new_width // unit, new_height // unit
        return rows * (columns + 1)
