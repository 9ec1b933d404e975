"""How a model turns an image into image tokens, as data.

For an image of any size, `VisionFacts` gives the size to which the model's image processor resizes
it and the number of image tokens in the prompt. Its fields have the names that the checkpoint's
image processor uses, so that `mm_processor_kwargs` given to the engine (`max_pixels`, `num_crops`,
…) apply here under the same names.

Three subclasses cover most families. A plugin for another one subclasses `VisionFacts` or
implements the hook `count_image_tokens`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from vlm_run.errors import MediaError

# As Pillow's `reducing_gap`: its documentation calls the result for 2 hard to distinguish from none.
_SPARE = 2
# Ratio of aspect ratios up to which a page is rendered at exactly the size that the model resizes it to.
_NEARLY = 1.05


class VisionFacts(BaseModel, ABC):
    """How a model's image processor treats an image of a given size."""

    # Built when first used: a command that lists model types uses few of the classes.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    downscaled_decode: bool = False
    """Whether a JPEG may be decoded at a lower resolution where that changes neither the size that the
    model resizes it to nor its tokens. Leave it False if the plugin implements `preprocess_image` and
    needs images at full resolution."""
    max_aspect_ratio: float | None = None
    """Maximum ratio of the longer to the shorter side; None accepts any. Qwen's processor refuses more
    than 200; LLaVA's would create very large intermediate images."""

    def check_size(self, width: int, height: int) -> None:
        """Raise `MediaError` for an image that the image processor does not accept."""
        limit = self.max_aspect_ratio
        if limit is not None and max(width, height) > limit * min(width, height):
            raise MediaError(
                f"an image of {width} × {height} pixels is too narrow for this model, "
                f"whose limit is {limit:g} to 1",
                hint="Crop or pad the image.",
            )

    @abstractmethod
    def count_image_tokens(self, width: int, height: int) -> int:
        """The number of prompt tokens that an image of `width` × `height` pixels takes.

        All tokens count by which vLLM's processor replaces the placeholder, including those that separate
        rows or tiles and newlines.
        """

    def resized(self, width: int, height: int) -> tuple[int, int] | None:
        """Width and height in pixels to which the image processor resizes the whole image.

        A model that cuts an image into tiles resizes it to the canvas of all tiles. `vlm-run explain` shows
        the size, and JPEGs are decoded at a lower resolution only if it is known. The default is None:
        unknown.
        """
        return None

    def size_with_most_tokens(self) -> tuple[int, int] | None:
        """Width and height in pixels of an image that takes nearly as many tokens as any.

        Before an engine starts, vlm-run checks that such an image fits. The default is None: unknown, and
        nothing is checked.
        """
        return None

    def bounded(self, min_pixels: int | None, max_pixels: int | None) -> Self:
        """The facts for an image whose area a request bounds, in pixels.

        Raises:
            MediaError: The model does not support `min_pixels` and `max_pixels`.
        """
        raise pixel_bounds_unsupported()

    def processor_options(self) -> Mapping[str, Any]:
        """Options of vLLM's processor for an image whose area a request bounds; of the facts from `bounded`.

        By default there are none, and such an image is resized before the processor sees it. A processor
        that enlarges every image, as Gemma 4's does, needs the bound as an option of its own.
        """
        return {}

    def allows_downscaled_decode(self, size: tuple[int, int], smaller: tuple[int, int]) -> bool:
        """Whether a JPEG may be decoded at a lower resolution.

        The model must resize both to the same size and count the same number of tokens, and each side
        of the smaller image must still be at least twice as long as after resizing, so that the model's
        own resizing determines how pixels are averaged.

        Args:
            size: Width and height of the image in pixels.
            smaller: Width and height in pixels at which it would be decoded.
        """
        if not self.downscaled_decode:
            return False
        target = self.resized(*size)
        return (
            target is not None
            and self.resized(*smaller) == target
            and self.count_image_tokens(*smaller) == self.count_image_tokens(*size)
            and all(side >= _SPARE * seen for side, seen in zip(smaller, target, strict=True))
        )

    def page_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height in pixels at which to render a page of a PDF.

        It is the size to which the model resizes the page or, if that has another aspect ratio, the smallest
        one that covers it: more pixels would be averaged away, and fewer would blur the text. The page
        keeps its usual size where the model's is unknown, where the model would resize the other one
        differently, and where it would become smaller without `downscaled_decode`.

        Args:
            width: Width of the page at the usual resolution, in pixels.
            height: Height of the page at the usual resolution, in pixels.

        Raises:
            MediaError: The model does not accept an image of this size.
        """
        self.check_size(width, height)
        target = self.resized(width, height)
        if target is None:
            return width, height
        scales = target[0] / width, target[1] / height
        if max(scales) < 1 and not self.downscaled_decode:
            return width, height
        covering = max(1, round(width * max(scales))), max(1, round(height * max(scales)))
        tokens = self.count_image_tokens(width, height)
        for size in (target, covering) if max(scales) < _NEARLY * min(scales) else (covering,):
            if self.resized(*size) == target and self.count_image_tokens(*size) == tokens:
                return size
        return width, height

    def with_processor_kwargs(self, kwargs: Mapping[str, Any]) -> Self:
        """The facts under `mm_processor_kwargs`; keys that are not fields are ignored."""
        fields = type(self).model_fields
        known = {name: value for name, value in kwargs.items() if name in fields and value is not None}
        return type(self).model_validate({**self.model_dump(), **known}) if known else self


def pixel_bounds_unsupported() -> MediaError:
    """The error for bounds on an image's area that the model does not support."""
    return MediaError(
        "this model does not support min_pixels and max_pixels", hint="Leave out min_pixels and max_pixels."
    )


class FixedResolution(VisionFacts):
    """Every image is resized to one square, as in LLaVA 1.5.

    Source: `LlavaProcessingInfo.get_num_image_tokens` in vLLM, whose `default` feature
    selection drops the class token.
    """

    max_aspect_ratio: float | None = 200.0
    image_size: int
    """Side of the square, in pixels."""
    patch_size: int
    """Side of one patch, in pixels."""

    def resized(self, width: int, height: int) -> tuple[int, int]:
        return self.image_size, self.image_size

    def size_with_most_tokens(self) -> tuple[int, int]:
        return self.image_size, self.image_size

    def count_image_tokens(self, width: int, height: int) -> int:
        return (self.image_size // self.patch_size) ** 2


class AnyResolution(VisionFacts):
    """A thumbnail and the tiles of the best-fitting canvas, as in LLaVA-NeXT and, with `max_tiles`,
    LLaVA-OneVision.

    Source: `LlavaNextProcessingInfo.get_num_image_tokens` in vLLM and
    `LlavaNextProcessor._get_unpadded_features` in transformers; for `max_tiles`, the methods of
    the same names of `LlavaOnevisionProcessingInfo` and `LlavaOnevisionProcessor`.
    """

    max_aspect_ratio: float | None = 200.0
    image_size: int
    """Side of one tile, in pixels."""
    patch_size: int
    """Side of one patch, in pixels."""
    image_grid_pinpoints: tuple[tuple[int, int], ...]
    """The canvases to choose from, each (height, width) in pixels."""
    max_tiles: int | None = None
    """Maximum number of tiles whose patches are kept; the patches of a larger canvas are scaled down
    to that many: 9 in `anyres_max_9`. None keeps all."""

    def resized(self, width: int, height: int) -> tuple[int, int]:
        canvas_height, canvas_width = self._best_canvas(width, height)
        return canvas_width, canvas_height

    def size_with_most_tokens(self) -> tuple[int, int]:
        # An image of a canvas's own size has no padding, so all of its patches are kept. With `max_tiles`, an
        # image whose padding just avoids the scaling down takes up to 8 % more.
        canvases = ((width, height) for height, width in self.image_grid_pinpoints)
        return max(canvases, key=lambda size: self.count_image_tokens(*size))

    def count_image_tokens(self, width: int, height: int) -> int:
        side = self.image_size // self.patch_size
        rows, columns = self._kept_grid(width, height)
        return side * side + rows * columns + rows  # thumbnail, patches, one newline token per row

    def _kept_grid(self, width: int, height: int) -> tuple[int, int]:
        """Rows and columns of patches that remain after padding is cut off and the canvas scaled down."""
        side = self.image_size // self.patch_size
        canvas_height, canvas_width = self._best_canvas(width, height)
        rows = side * (canvas_height // self.image_size)
        columns = side * (canvas_width // self.image_size)
        # The padding is cut off evenly on both sides, so an odd remainder stays on the canvas. A very
        # narrow image loses all patches: the model then sees only the thumbnail.
        if width / height > columns / rows:
            kept = int(round(height * (columns / width), 7))
            rows -= 2 * ((rows - kept) // 2)
        else:
            kept = int(round(width * (rows / height), 7))
            columns -= 2 * ((columns - kept) // 2)
        if self.max_tiles is not None:
            ratio = math.sqrt(rows * columns / (self.max_tiles * side**2))
            if ratio > 1.1:
                rows, columns = int(rows // ratio), int(columns // ratio)
        return rows, columns

    def _best_canvas(self, width: int, height: int) -> tuple[int, int]:
        """The (height, width) that keeps most of the image and, among those, needs the least padding."""

        def fit(canvas: tuple[int, int]) -> tuple[int, int]:
            canvas_height, canvas_width = canvas
            scale = min(canvas_width / width, canvas_height / height)
            scaled = int(width * scale) * int(height * scale)
            effective = min(scaled, width * height)
            return effective, effective - canvas_width * canvas_height

        return max(self.image_grid_pinpoints, key=fit)


class DynamicResolution(VisionFacts):
    """The image keeps its aspect ratio and is resized to an area between two bounds, as in Qwen2-VL and
    later Qwen-VL models.

    Source: `smart_resize` in transformers' `image_processing_qwen2_vl.py`.
    """

    max_aspect_ratio: float | None = 200.0
    patch_size: int
    """Side of one patch, in pixels."""
    merge_size: int
    """Side, in patches, of the square of patches that becomes one image token."""
    min_pixels: int
    """Minimum area in pixels; smaller images are enlarged."""
    max_pixels: int
    """Maximum area in pixels; larger images are shrunk."""

    def with_processor_kwargs(self, kwargs: Mapping[str, Any]) -> Self:
        # As vLLM's `Qwen2VLProcessingInfo`: `size` also sets the bounds; min_pixels and max_pixels win.
        size = kwargs.get("size") or {}
        edges = {"min_pixels": size.get("shortest_edge"), "max_pixels": size.get("longest_edge")}
        given = {name: value for name, value in kwargs.items() if value is not None}
        return super().with_processor_kwargs({**edges, **given})

    def bounded(self, min_pixels: int | None, max_pixels: int | None) -> Self:
        # Within the engine's own bounds, to which the processor would resize the image again.
        low = min(max(min_pixels or self.min_pixels, self.min_pixels), self.max_pixels)
        high = max(min(max_pixels or self.max_pixels, self.max_pixels), low)
        return self.model_copy(update={"min_pixels": low, "max_pixels": high})

    def size_with_most_tokens(self) -> tuple[int, int]:
        unit = self.patch_size * self.merge_size
        side = max(unit, math.isqrt(self.max_pixels) // unit * unit)
        return side, max(unit, self.max_pixels // side // unit * unit)

    def resized(self, width: int, height: int) -> tuple[int, int]:
        unit = self.patch_size * self.merge_size
        new_width, new_height = (round(side / unit) * unit for side in (width, height))
        if new_width * new_height > self.max_pixels:
            shrink = math.sqrt(width * height / self.max_pixels)
            new_width, new_height = (
                max(unit, math.floor(side / shrink / unit) * unit) for side in (width, height)
            )
        elif new_width * new_height < self.min_pixels:
            grow = math.sqrt(self.min_pixels / (width * height))
            new_width, new_height = (math.ceil(side * grow / unit) * unit for side in (width, height))
        return new_width, new_height

    def count_image_tokens(self, width: int, height: int) -> int:
        unit = self.patch_size * self.merge_size
        new_width, new_height = self.resized(width, height)
        return (new_width // unit) * (new_height // unit)
