"""Image token counts from the checkpoint's own processor, which transformers loads when first asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Self

from pydantic import Field

from vlm_run.errors import UnknownTokenCountError
from vlm_run.vision import VisionFacts

# Follows the placeholder in the text that is processed, to see whether the processor adds more than tokens of
# the image.
_AFTER = "Q"


class ProcessorFacts(VisionFacts):
    """Runs the processor of a checkpoint on a blank image of the given size. Needs transformers."""

    checkpoint: str
    """The checkpoint directory."""
    placeholder: str
    """The string that represents an image in the prompt."""
    processor_kwargs: Mapping[str, Any] = Field(default_factory=dict)
    """The engine's `mm_processor_kwargs`."""

    def count_image_tokens(self, width: int, height: int) -> int:
        """The number of prompt tokens that an image of `width` × `height` pixels takes.

        Raises:
            UnknownTokenCountError: transformers cannot load or run the processor.
        """
        return _count(
            self.checkpoint, self.placeholder, json.dumps(dict(self.processor_kwargs)), width, height
        )

    def with_processor_kwargs(self, kwargs: Mapping[str, Any]) -> Self:
        return self.model_copy(update={"processor_kwargs": {**self.processor_kwargs, **kwargs}})


@lru_cache(maxsize=4096)
def _count(checkpoint: str, placeholder: str, kwargs: str, width: int, height: int) -> int:
    try:
        from PIL import Image

        processor = load_processor(checkpoint)
        image = Image.new("RGB", (width, height))
        text = placeholder + _AFTER
        expanded = processor(text=[text], images=[[image]], add_special_tokens=False, **json.loads(kwargs))
        ids = list(expanded["input_ids"][0])
        plain, after = (
            processor.tokenizer(each, add_special_tokens=False)["input_ids"] for each in (text, _AFTER)
        )
        if ids[-len(after) :] != after:  # PaliGemma's
            raise ValueError("the processor adds text of its own to a prompt")
        # The tokens of the image replace one token of the placeholder.
        return len(ids) - len(plain) + 1
    except Exception as error:
        raise UnknownTokenCountError(
            f"the processor of {checkpoint} does not tell how many tokens an image of {width} x {height} "
            f"pixels takes: {type(error).__name__}: {error}"
        ) from error


@lru_cache(maxsize=16)
def load_processor(checkpoint: str) -> Any:
    """The processor of a checkpoint directory, which transformers loads without remote code."""
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(checkpoint, local_files_only=True, trust_remote_code=False)
