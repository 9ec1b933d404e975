"""DeepSeek-OCR's image tokens."""

from __future__ import annotations

from vlm_run import VisionFacts

# Side, in pixels, of the square that becomes one image token: patches of 16 pixels, merged 4 × 4.
_UNIT = 64


class GlobalAndLocalViews(VisionFacts):
    """The whole image on a square, and tiles of it if one of its sides is longer than that of a tile.

    Each row of tokens ends with a newline token, and one token separates the views.

    Source: `DeepseekOCRProcessingInfo.get_num_image_tokens` in vLLM, and `count_tiles` beside its processor.
    """

    max_aspect_ratio: float | None = 200.0  # a narrower one would be a line of less than six pixels
    base_size: int
    """Side of the square of the whole image, in pixels."""
    image_size: int
    """Side of a tile, in pixels."""
    max_crops: int
    """Maximum number of tiles."""

    def with_processor_kwargs(self, kwargs: object) -> GlobalAndLocalViews:
        # vLLM counts with constants, whatever the engine's options.
        return self

    def resized(self, width: int, height: int) -> tuple[int, int]:
        columns, rows = self._grid(width, height)
        if columns * rows == 1:
            return self.base_size, self.base_size
        return columns * self.image_size, rows * self.image_size

    def size_with_most_tokens(self) -> tuple[int, int]:
        return self.image_size, self.max_crops * self.image_size

    def count_image_tokens(self, width: int, height: int) -> int:
        side = -(-self.base_size // _UNIT)
        tokens = side * (side + 1) + 1
        columns, rows = self._grid(width, height)
        if columns * rows == 1:
            return tokens
        side = -(-self.image_size // _UNIT)
        return tokens + rows * side * (columns * side + 1)

    def _grid(self, width: int, height: int) -> tuple[int, int]:
        """Columns and rows of the tiles whose aspect ratio is closest to the image's."""
        if max(width, height) <= self.image_size:
            return 1, 1
        sides = range(1, self.max_crops + 1)
        grids = [(c, r) for c in sides for r in sides if 2 <= c * r <= self.max_crops]
        best, closest = (1, 1), float("inf")
        for columns, rows in sorted(grids, key=lambda grid: grid[0] * grid[1]):
            distance = abs(width / height - columns / rows)
            # Of grids that are equally close, a larger one if the image fills more than half of it.
            filled = 2 * width * height > self.image_size**2 * columns * rows
            if distance < closest or (distance == closest and filled):
                best, closest = (columns, rows), distance
        return best
