"""The image tokens of Gemma 3 and Gemma 4."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Self

from vlm_run import UnknownTokenCountError, VisionFacts

# What `Gemma3Processor.full_image_sequence` has around the soft tokens: "\n\n", `boi_token`, `eoi_token` and
# "\n\n". Gemma's vocabulary has a token for two newlines (`Gemma3MultiModalProcessor` in vLLM looks it up).
_AROUND = 4


class SoftTokens(VisionFacts):
    """Every image is resized to one square and takes the same number of soft tokens.

    Source: `Gemma3Processor` in transformers, and `Gemma3ProcessingInfo.get_image_repl` in vLLM.
    """

    image_size: int
    """Side of the square, in pixels."""
    image_seq_length: int
    """Soft tokens of one image."""
    do_pan_and_scan: bool = False
    """Whether wide and tall images are also cropped. The number of tokens is then unknown, since it depends
    on how the tokenizer splits the sentence that the processor writes around the crops."""

    def resized(self, width: int, height: int) -> tuple[int, int]:
        return self.image_size, self.image_size

    def size_with_most_tokens(self) -> tuple[int, int] | None:
        return None if self.do_pan_and_scan else (self.image_size, self.image_size)

    def count_image_tokens(self, width: int, height: int) -> int:
        if self.do_pan_and_scan:
            raise UnknownTokenCountError("image tokens are not counted with do_pan_and_scan")
        return self.image_seq_length + _AROUND


BUDGETS = (70, 140, 280, 560, 1120)
"""The numbers of soft tokens that Gemma 4's image processor accepts as `max_soft_tokens`."""


class SoftTokenBudget(VisionFacts):
    """The image is enlarged or shrunk, with its aspect ratio, to as many soft tokens as a budget allows.

    Source: `get_aspect_ratio_preserving_size` in transformers' `image_processing_gemma4.py`, and
    `Gemma4ProcessingInfo.get_image_repl` in vLLM.
    """

    patch_size: int
    """Side of one patch, in pixels."""
    pooling_kernel_size: int
    """Side, in patches, of the square of patches that becomes one soft token."""
    max_soft_tokens: Literal[70, 140, 280, 560, 1120]
    """Maximum number of soft tokens of an image."""

    def bounded(self, min_pixels: int | None, max_pixels: int | None) -> Self:
        # The largest budget that the area leaves, within the engine's own. `min_pixels` has no effect, since
        # an image is enlarged to its budget anyway.
        area = (self.patch_size * self.pooling_kernel_size) ** 2
        most = self.max_soft_tokens if max_pixels is None else min(max_pixels // area, self.max_soft_tokens)
        budget = max((budget for budget in BUDGETS if budget <= most), default=BUDGETS[0])
        return self.model_copy(update={"max_soft_tokens": budget})

    def processor_options(self) -> Mapping[str, Any]:
        return {"max_soft_tokens": self.max_soft_tokens}

    def resized(self, width: int, height: int) -> tuple[int, int]:
        unit, most = self.patch_size * self.pooling_kernel_size, self.max_soft_tokens
        scale = math.sqrt(most * unit**2 / (height * width))
        columns, rows = math.floor(scale * width / unit), math.floor(scale * height / unit)
        if rows == 0:
            columns, rows = min(width // height, most), 1
        elif columns == 0:
            columns, rows = 1, min(height // width, most)
        return columns * unit, rows * unit

    def size_with_most_tokens(self) -> tuple[int, int]:
        unit = self.patch_size * self.pooling_kernel_size
        rows = max(
            rows
            for rows in range(1, math.isqrt(self.max_soft_tokens) + 1)
            if self.max_soft_tokens % rows == 0
        )
        return self.max_soft_tokens // rows * unit, rows * unit

    def count_image_tokens(self, width: int, height: int) -> int:
        unit = self.patch_size * self.pooling_kernel_size
        resized_width, resized_height = self.resized(width, height)
        return (resized_width // unit) * (resized_height // unit) + 2  # between `boi_token` and `eoi_token`
