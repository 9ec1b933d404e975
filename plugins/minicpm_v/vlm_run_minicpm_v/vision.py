"""MiniCPM-V's slices."""

from __future__ import annotations

import math
from typing import Literal

from vlm_run import VisionFacts

_Size = tuple[float, float]
"""Width and height."""

# Sizes are multiples of the square of patches that becomes one image token with `downsample_mode` "16x".
_MERGED = 4


class Slices(VisionFacts):
    """The whole image, and slices of it if it is large.

    The prompt has `<image_id>0</image_id><image>…</image>`, then a line for each row of `<slice>…</slice>`.
    The number of the image is counted as one token, as it is for the first ten images of a request.

    Source: `MiniCPMV4_6ImageProcessor` and `MiniCPMV4_6Processor` in transformers.
    """

    scale_resolution: int
    """Side of a square, in pixels, of whose area the whole image and each slice are."""
    patch_size: int
    """Side of one patch, in pixels."""
    max_slice_nums: int
    """Maximum number of slices."""
    downsample_mode: Literal["4x", "16x"] = "16x"
    """How many patches become one image token."""

    def resized(self, width: int, height: int) -> tuple[int, int]:
        grid = self._grid(width, height)
        if grid is None:
            return self._best_size((width, height), enlarge=True)
        columns, rows = grid
        slice_width, slice_height = self._slice_size(width, height, grid)
        return columns * slice_width, rows * slice_height

    def size_with_most_tokens(self) -> tuple[int, int]:
        rows = max(rows for rows in _divisors(self.max_slice_nums) if rows**2 <= self.max_slice_nums)
        return self.max_slice_nums // rows * self.scale_resolution, rows * self.scale_resolution

    def count_image_tokens(self, width: int, height: int) -> int:
        grid = self._grid(width, height)
        whole = self._tokens(self._best_size((width, height), enlarge=grid is None))
        tokens = 3 + 2 + whole
        if grid is None:
            return tokens
        columns, rows = grid
        of_slice = 2 + self._tokens(self._slice_size(width, height, grid))
        newlines = rows - 1
        return tokens + columns * rows * of_slice + newlines

    def _tokens(self, size: tuple[int, int]) -> int:
        width, height = size
        patches = (width // self.patch_size) * (height // self.patch_size)
        return patches // (4 if self.downsample_mode == "4x" else 16)

    def _grid(self, width: int, height: int) -> tuple[int, int] | None:
        """Columns and rows of slices; None for an image that is not cut."""
        area = width * height / self.scale_resolution**2
        wanted = min(math.ceil(area), self.max_slice_nums)
        if wanted <= 1:
            return None
        numbers = [count for count in (wanted - 1, wanted, wanted + 1) if 1 < count <= self.max_slice_nums]
        grids = [(count // rows, rows) for count in numbers for rows in _divisors(count)]

        def error(grid: tuple[int, int]) -> tuple[float, int]:
            columns, rows = grid
            return abs(math.log(width / height) - math.log(columns / rows)), -rows

        return min(grids, key=error, default=(1, 1))

    def _slice_size(self, width: int, height: int, grid: tuple[int, int]) -> tuple[int, int]:
        """Width and height of each slice, in pixels."""
        columns, rows = grid
        shares = _nearest_multiple(width, columns) / columns, _nearest_multiple(height, rows) / rows
        return self._best_size(shares, enlarge=True)

    def _best_size(self, size: _Size, enlarge: bool) -> tuple[int, int]:
        """The size of `scale_resolution`'s area, or that of a smaller image if it is not enlarged."""
        width, height = size
        if enlarge or width * height > self.scale_resolution**2:
            ratio = width / height
            height = int(self.scale_resolution / math.sqrt(ratio))
            width = int(height * ratio)
        unit = _MERGED * self.patch_size
        return _nearest_multiple(width, unit), _nearest_multiple(height, unit)


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def _nearest_multiple(length: float, unit: int) -> int:
    """The multiple of `unit` that is nearest to a length, at least one."""
    return max(round(length / unit) * unit, unit)
