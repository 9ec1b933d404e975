"""The tiles of SmolVLM and Idefics3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from vlm_run import UnknownTokenCountError, VisionFacts

# `MAX_IMAGE_SIZE` in transformers' `image_processing_idefics3.py`, in pixels.
_LONGEST_EDGE = 4096
# The models know tags of so many rows and columns.
_MOST_ROWS = 6


class SplitImage(VisionFacts):
    """The image is resized to a longest edge and split into square tiles, which the whole image follows.

    A tile is a separator, a tag with its row and column, and its image tokens; each row of tiles ends with
    a newline. The whole image is a separator, a tag and its image tokens, and ends with a separator. It is
    alone if it is not split.

    Source: `Idefics3ImageProcessor.get_number_of_image_patches` and `Idefics3Processor.replace_image_token`
    in transformers, `Idefics3ProcessingInfo.get_image_repl` in vLLM; SmolVLM's are the same.
    """

    longest_edge: int
    """Longest edge of the resized image in pixels, `size` of the image processor."""
    tile_size: int
    """Side of a tile in pixels, `max_image_size` of the image processor."""
    image_seq_len: int
    """Image tokens of a tile."""
    tag_tokens: int = 1
    """Tokens of a tag such as `<row_1_col_1>`; several if it is not one of the tokenizer's special tokens."""
    global_tag_tokens: int = 1
    """Tokens of `<global-img>`."""
    do_image_splitting: bool = True
    """Whether the image is split."""

    def with_processor_kwargs(self, kwargs: Mapping[str, Any]) -> Self:
        edges = {
            "longest_edge": (kwargs.get("size") or {}).get("longest_edge"),
            "tile_size": (kwargs.get("max_image_size") or {}).get("longest_edge"),
        }
        return super().with_processor_kwargs({**kwargs, **edges})

    def resized(self, width: int, height: int) -> tuple[int, int]:
        columns, rows = self._grid(width, height)
        return columns * self.tile_size, rows * self.tile_size

    def size_with_most_tokens(self) -> tuple[int, int]:
        return self.longest_edge, self.longest_edge

    def count_image_tokens(self, width: int, height: int) -> int:
        columns, rows = self._grid(width, height)
        if max(columns, rows) > _MOST_ROWS:
            raise UnknownTokenCountError(
                f"image tokens are counted for up to {_MOST_ROWS} rows and columns of tiles, not for "
                f"{rows} x {columns}"
            )
        whole = 1 + self.global_tag_tokens + self.image_seq_len + 1
        if columns == rows == 1:
            return whole
        tile = 1 + self.tag_tokens + self.image_seq_len
        # A newline for each row: the second one after the last row makes one token with the first.
        return rows * (columns * tile + 1) + whole

    def _grid(self, width: int, height: int) -> tuple[int, int]:
        """Columns and rows of tiles; one of each if the image is not split."""
        if not self.do_image_splitting:
            return 1, 1
        scaled_width, scaled_height = self._scaled(width, height)
        return -(-scaled_width // self.tile_size), -(-scaled_height // self.tile_size)

    def _scaled(self, width: int, height: int) -> tuple[int, int]:
        """Width and height with the longest edge, the shorter one rounded up to an even number."""
        edge, aspect_ratio = self.longest_edge, width / height
        if width >= height:
            width, height = edge, _even(int(edge / aspect_ratio))
        else:
            width, height = _even(int(edge * aspect_ratio)), edge
        aspect_ratio = width / height
        if width >= height and width > _LONGEST_EDGE:
            return _LONGEST_EDGE, max(1, int(_LONGEST_EDGE / aspect_ratio))
        if height > _LONGEST_EDGE:
            return max(1, int(_LONGEST_EDGE * aspect_ratio)), _LONGEST_EDGE
        return width, height


def _even(side: int) -> int:
    """The side as an even number of pixels, at least 1 as in transformers."""
    return max(1, side + side % 2)
