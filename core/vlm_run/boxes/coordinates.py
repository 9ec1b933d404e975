"""The coordinates in which a model writes boxes, and boxes in pixels of the original image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

_DECIMALS = 2


@dataclass(frozen=True, slots=True)
class Box:
    """A box in an answer, in pixels of the original image, upright as its EXIF orientation says.

    The edges are distances from the left and from the top: a box of the whole image is
    `(0, 0, width, height)`. `image.crop(box.edges)` is what the box shows.

    Attributes:
        label: What the model calls it; empty if it has no name.
        left: Left edge.
        top: Top edge.
        right: Right edge, greater than `left`.
        bottom: Bottom edge, greater than `top`.
        image_index: Zero-based index of its image, counted over the whole conversation; None if there are
            several images, since an answer does not tell them apart.
    """

    label: str
    left: float
    top: float
    right: float
    bottom: float
    image_index: int | None = 0

    @property
    def edges(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom, in Pillow's order."""
        return self.left, self.top, self.right, self.bottom

    def to_dict(self) -> dict[str, Any]:
        """The box as JSON-compatible data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ImageSize:
    """The size of an image before and after resizing.

    Attributes:
        width: Width in pixels, after EXIF rotation.
        height: Height in pixels, after EXIF rotation.
        resized: Width and height in pixels to which the image processor resizes it; None if unknown.
    """

    width: int
    height: int
    resized: tuple[int, int] | None = None


class BoxCoordinates(BaseModel):
    """How a model writes the coordinates of boxes in its answers.

    `BoxCoordinates(maximum=1000)` for coordinates from 0 to 1000, `BoxCoordinates(maximum=1)` for fractions,
    `BoxCoordinates(maximum=None)` for pixels of the resized image.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    maximum: float | None = Field(gt=0)
    """The coordinate of the right and of the bottom edge of every image; None if coordinates are pixels of
    the image as `VisionFacts.resized` tells its size. Its processor must not pad or crop the image."""
    y_first: bool = False
    """Whether the model writes `[y1, x1, y2, x2]`, in JSON under the key `box_2d`, in place of
    `[x1, y1, x2, y2]` under the key `bbox_2d` or `bbox`."""

    @property
    def description(self) -> str:
        """The coordinates in words."""
        order = ", y before x" if self.y_first else ""
        if self.maximum is None:
            return f"pixels of the resized image{order}"
        if self.maximum == 1:
            return f"fractions of width and height, 0 to 1{order}"
        return f"0 to {self.maximum:g}, for any image size{order}"

    def to_box(
        self, label: str, numbers: Sequence[float], size: ImageSize, image_index: int | None = 0
    ) -> Box | None:
        """A box in pixels of the original image.

        What is outside the image is cut off.

        Args:
            label: What the model calls it.
            numbers: Four coordinates, in the model's order.
            size: The image's size.
            image_index: Zero-based index of the image; None if there are several.

        Returns:
            The box; None if no area of it is inside the image, if a number is not finite, or if coordinates
            are pixels of the resized image and its size is unknown.
        """
        if not all(map(math.isfinite, numbers)):
            return None
        x1, y1, x2, y2 = numbers
        if self.y_first:
            x1, y1, x2, y2 = y1, x1, y2, x2
        whole = size.resized if self.maximum is None else (self.maximum, self.maximum)
        if whole is None:
            return None
        left, right = (_scaled(x, whole[0], size.width) for x in (x1, x2))
        top, bottom = (_scaled(y, whole[1], size.height) for y in (y1, y2))
        if left >= right or top >= bottom:
            return None
        return Box(label, left, top, right, bottom, image_index)


def _scaled(coordinate: float, whole: float, pixels: int) -> float:
    """A coordinate in pixels of the original image, moved to the nearest edge if it is outside."""
    return round(min(max(coordinate / whole, 0.0), 1.0) * pixels, _DECIMALS)
