"""How LLaVA-NeXT cuts an image into tiles and lays their features out in the prompt.

Written against Pillow and numpy so that data workers need no framework; `check.py` compares it with
the processor and model of transformers.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from batches import NEWLINE
from numpy.typing import NDArray
from PIL import Image

TILE = 64
"""Side in pixels of a tile, the vision tower's input."""
PATCH = 8
"""Side in pixels of a patch, the square that one feature stands for."""
PATCHES = (TILE // PATCH) ** 2
"""Features that a tile gives."""
PINPOINTS = [[64, 128], [128, 64], [128, 128], [192, 64], [64, 192]]
"""Height and width of the canvases that an image may be fitted to, in the order of LLaVA-1.6."""

BICUBIC = Image.Resampling.BICUBIC


@lru_cache(maxsize=65536)
def canvas(height: int, width: int) -> tuple[int, int]:
    """The pinpoint that keeps most of the image's pixels and, among those, wastes the fewest."""

    def merit(pinpoint: list[int]) -> tuple[int, int]:
        scale = min(pinpoint[1] / width, pinpoint[0] / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        return kept, kept - pinpoint[0] * pinpoint[1]

    best = max(PINPOINTS, key=merit)
    return best[0], best[1]


def fit(height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Where an image lies on its canvas: its left and top edge, and its resized width and height."""
    rows, columns = canvas(height, width)
    scale_w, scale_h = columns / width, rows / height
    if scale_w < scale_h:
        fitted = (columns, min(math.ceil(height * scale_w), rows))
    else:
        fitted = (min(math.ceil(width * scale_h), columns), rows)
    return ((columns - fitted[0]) // 2, (rows - fitted[1]) // 2), fitted


def tiles(image: Image.Image, resample: Image.Resampling = BICUBIC) -> NDArray[np.uint8]:
    """The whole image squeezed into one tile, then the tiles of its canvas: (1 + n, 64, 64, channels)."""
    rows, columns = canvas(image.height, image.width)
    corner, fitted = fit(image.height, image.width)
    padded = Image.new(image.mode, (columns, rows))
    padded.paste(image.resize(fitted, resample), corner)
    grid = np.asarray(padded).reshape(rows // TILE, TILE, columns // TILE, TILE, -1)
    base = np.asarray(image.resize((TILE, TILE), resample)).reshape(1, TILE, TILE, -1)
    return np.concatenate([base, grid.swapaxes(1, 2).reshape(-1, TILE, TILE, base.shape[-1])])


def patch_classes(class_map: Image.Image) -> NDArray[np.uint8]:
    """The class at the middle of each patch of an image's tiles: (1 + n, 64)."""
    cut = tiles(class_map, Image.Resampling.NEAREST)
    return cut[:, PATCH // 2 :: PATCH, PATCH // 2 :: PATCH].reshape(len(cut), -1)


def patch_at(height: int, width: int, x: float, y: float) -> tuple[int, int]:
    """The two patches that a point of an image falls into, counted over all patches of its tiles.

    The first is one of the squeezed tile, the second one of the canvas.
    """
    (left, top), (fitted_width, fitted_height) = fit(height, width)
    base_row, base_column = int(y * TILE / height) // PATCH, int(x * TILE / width) // PATCH
    row, column = top + int(y * fitted_height / height), left + int(x * fitted_width / width)
    tile = 1 + row // TILE * (canvas(height, width)[1] // TILE) + column // TILE
    inside = row % TILE // PATCH * (TILE // PATCH) + column % TILE // PATCH
    return base_row * (TILE // PATCH) + base_column, tile * PATCHES + inside


@lru_cache(maxsize=65536)
def layout(height: int, width: int) -> NDArray[np.int64]:
    """Which feature stands at each image token of an image.

    Entry i is the index of a feature among those of the image's tiles, 64 for each tile, or
    `NEWLINE`. First the squeezed tile; then the canvas row by row without the padding above and below
    or left and right, a newline after each row.
    """
    rows, columns = canvas(height, width)
    side = TILE // PATCH
    grid = np.arange((rows // TILE) * (columns // TILE) * side * side).reshape(
        rows // TILE, columns // TILE, side, side
    )
    plane = grid.swapaxes(1, 2).reshape(rows // PATCH, columns // PATCH) + side * side
    plane_h, plane_w = plane.shape
    if width / height > plane_w / plane_h:
        padding = (plane_h - int(round(height * (plane_w / width), 7))) // 2
        plane = plane[padding : plane_h - padding]
    else:
        padding = (plane_w - int(round(width * (plane_h / height), 7))) // 2
        plane = plane[:, padding : plane_w - padding]
    with_newlines = np.pad(plane, ((0, 0), (0, 1)), constant_values=NEWLINE)
    return np.concatenate([np.arange(side * side), with_newlines.reshape(-1)])
