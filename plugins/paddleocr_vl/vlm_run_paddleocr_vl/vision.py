"""PaddleOCR-VL's image sizes."""

from __future__ import annotations

from vlm_run import DynamicResolution


class EnlargedToOneToken(DynamicResolution):
    """As Qwen2-VL, but an image with a side shorter than that of one image token is enlarged first.

    Source: `smart_resize` in transformers' `image_processing_paddleocr_vl.py`.
    """

    def resized(self, width: int, height: int) -> tuple[int, int]:
        unit = self.patch_size * self.merge_size
        if height < unit:
            width, height = round(width * unit / height), unit
        if width < unit:
            width, height = unit, round(height * unit / width)
        return super().resized(width, height)
