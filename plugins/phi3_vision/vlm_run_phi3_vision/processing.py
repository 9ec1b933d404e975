"""Phi-3-vision's processor, written from its published behaviour.

Source: processing_phi3_v.py and image_processing_phi3_v.py of microsoft/Phi-3-vision-128k-instruct.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, TypedDict

import torch
from PIL import Image
from transformers import AutoTokenizer, BatchFeature, ProcessorMixin
from transformers.utils import cached_file

from vlm_run_phi3_vision.vision import CROP, HDTransform

IMAGE_TOKEN = "<|image|>"
_MOST_IMAGES = 1000

# CLIP's values, as in preprocessor_config.json.
_MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
_STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)


class _ImageOptions(TypedDict, total=False):
    num_crops: int


class ImageProcessor:
    """Turns images into the crops that the vision encoder sees."""

    valid_kwargs = _ImageOptions

    def __init__(self, num_crops: int) -> None:
        self.facts = HDTransform(num_crops=num_crops)

    def __call__(self, images: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
        """The crops and sizes of the images.

        Returns:
            `pixel_values`, (images, 1 + num_crops, 3, 336, 336), the small view first and zeros
            after the last crop; `image_sizes`, (images, 2), height and width of the large view.
        """
        pixel_values = torch.zeros(len(images), 1 + self.facts.num_crops, 3, CROP, CROP)
        sizes = []
        for image, crops in zip(images, pixel_values, strict=True):
            view = self._large_view(image.convert("RGB"))
            _cut(view, crops)
            sizes.append(view.shape[1:])
        return {"pixel_values": pixel_values, "image_sizes": torch.tensor(sizes)}

    def _large_view(self, image: Image.Image) -> torch.Tensor:
        """The image resized, padded with white to whole crops and normalized, (3, height, width)."""
        tall = image.width < image.height
        if tall:  # as published, so that rounding and padding are the same
            image = image.transpose(Image.Transpose.TRANSPOSE)
        width, height = self.facts.resized(*image.size)
        padded = Image.new("RGB", (width, -(-height // CROP) * CROP), "white")
        padded.paste(
            image.resize((width, height), Image.Resampling.BILINEAR), (0, (padded.height - height) // 2)
        )
        if tall:
            padded = padded.transpose(Image.Transpose.TRANSPOSE)
        pixels = torch.frombuffer(bytearray(padded.tobytes()), dtype=torch.uint8)
        levels = pixels.view(padded.height, padded.width, 3).permute(2, 0, 1).contiguous().float()
        return levels.div_(255).sub_(_MEAN).div_(_STD)


def _cut(view: torch.Tensor, crops: torch.Tensor) -> None:
    """Write the small view and the crops of a large view, (3, height, width), into the first of `crops`."""
    rows, columns = view.shape[1] // CROP, view.shape[2] // CROP
    crops[:1] = torch.nn.functional.interpolate(view[None], size=(CROP, CROP), mode="bicubic")
    cut = view.reshape(3, rows, CROP, columns, CROP).permute(1, 3, 0, 2, 4)
    crops[1 : 1 + rows * columns].view(rows, columns, 3, CROP, CROP).copy_(cut)


class Phi3VProcessor(ProcessorMixin):  # type: ignore[misc]
    """The processor interface that vLLM's Phi-3-vision uses."""

    # `ProcessorMixin.__init__` requires transformers' own image processor classes.
    def __init__(self, tokenizer: Any, num_crops: int) -> None:
        self.tokenizer = tokenizer
        self.image_processor = ImageProcessor(num_crops)
        self.chat_template = None

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str, **kwargs: Any) -> Self:
        """Load from a checkpoint; only the tokenizer and `num_crops` are read."""
        tokenizer = kwargs.get("tokenizer") or AutoTokenizer.from_pretrained(
            pretrained_model_name_or_path, trust_remote_code=False
        )
        num_crops = kwargs.get("num_crops")
        if num_crops is None:
            file = cached_file(
                pretrained_model_name_or_path, "preprocessor_config.json", revision=kwargs.get("revision")
            )
            num_crops = json.loads(Path(file).read_text(encoding="utf-8"))["num_crops"]
        return cls(tokenizer, num_crops)

    @property
    def img_tokens(self) -> list[str]:
        """The text that represents each image for this processor."""
        return [IMAGE_TOKEN] * _MOST_IMAGES

    def calc_num_image_tokens_from_image_size(self, *, width: int, height: int) -> int:
        """The number of image tokens for an image of `width` × `height` pixels."""
        return self.image_processor.facts.count_image_tokens(width, height)

    def __call__(
        self,
        text: str | list[str] | None = None,
        images: Image.Image | list[Image.Image] | None = None,
        num_crops: int | None = None,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """Token ids with one image token per image, and crops.

        vLLM replaces each image token by as many as the image takes.
        """
        features: dict[str, Any] = {}
        if text is not None:
            (one,) = [text] if isinstance(text, str) else text
            features["input_ids"] = torch.tensor([self.tokenizer(one).input_ids])
        if images:
            chosen = ImageProcessor(num_crops) if num_crops else self.image_processor
            features |= chosen(images if isinstance(images, list) else [images])
        return BatchFeature(features)
