"""Ray Data: columns in, columns out, and errors as data."""

from __future__ import annotations

import numpy as np
from PIL import Image

from vlm_run.ray.data import plain


def test_pixels_become_images_and_other_arrays_become_lists() -> None:
    pixels = np.zeros((4, 6, 3), np.uint8)
    image = plain(pixels)
    assert isinstance(image, Image.Image)
    assert image.size == (6, 4)
    row = {
        "images": np.array(["a.png", "b.png"], object),
        "n": np.int64(3),
        "nested": [{"x": np.float32(0.5)}],
    }
    assert plain(row) == {"images": ["a.png", "b.png"], "n": 3, "nested": [{"x": 0.5}]}
