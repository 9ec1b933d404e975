"""InternVL's tiles."""

from __future__ import annotations

from vlm_run import VisionFacts


class Tiles(VisionFacts):
    """The image is resized to a grid of square tiles; several tiles are followed by a thumbnail.

    Source: `get_optimal_tiled_canvas`, `GotOcr2ImageProcessor.get_number_of_image_patches` and
    `InternVLProcessor.replace_image_token` in transformers.
    """

    max_aspect_ratio: float | None = 200.0  # a narrower one would create very large intermediate images
    image_size: int
    """Side of a tile in pixels."""
    image_seq_length: int
    """Image tokens of a tile."""
    min_patches: int = 1
    """Minimum number of tiles without the thumbnail."""
    max_patches: int = 12
    """Maximum number of tiles without the thumbnail."""
    crop_to_patches: bool = True
    """Whether there may be several tiles."""

    def resized(self, width: int, height: int) -> tuple[int, int]:
        columns, rows = self._grid(width, height)
        return columns * self.image_size, rows * self.image_size

    def size_with_most_tokens(self) -> tuple[int, int]:
        sizes = ((columns * self.image_size, rows * self.image_size) for columns, rows in self._grids())
        # Of those with the most tiles, the one closest to a square.
        return max(sizes, key=lambda size: (self.count_image_tokens(*size), -abs(size[0] - size[1])))

    def count_image_tokens(self, width: int, height: int) -> int:
        columns, rows = self._grid(width, height)
        tiles = columns * rows
        thumbnail = 1 if tiles > 1 else 0
        return (tiles + thumbnail) * self.image_seq_length + 2  # between <img> and </img>

    def _grid(self, width: int, height: int) -> tuple[int, int]:
        """Columns and rows: of the grids with the closest aspect ratio, the largest that is not too large."""

        def rank(grid: tuple[int, int]) -> tuple[float, int]:
            columns, rows = grid
            tiles = columns * rows
            # Less than twice as large as the image.
            fits = tiles * self.image_size**2 < 2 * width * height
            return abs(width / height - columns / rows), -tiles if fits else tiles

        return min(self._grids(), key=rank)

    def _grids(self) -> list[tuple[int, int]]:
        if not self.crop_to_patches:
            return [(1, 1)]
        sides = range(1, self.max_patches + 1)
        numbers = range(self.min_patches, self.max_patches + 1)
        return [(columns, rows) for columns in sides for rows in sides if columns * rows in numbers]
